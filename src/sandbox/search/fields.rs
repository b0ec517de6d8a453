//! Which fields an index has, of what kind, and which of them stand below a nested path.

use super::Unsupported;

/// What can be asked of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole values: term, terms, prefix, regexp, exists, sort.
    Keyword,
    /// RFC 3339 or Unix milliseconds: range, exists, sort.
    Date,
    /// Analysed in a real index, so that whole values do not match: only exists.
    Text,
}

/// A field of a clause: where its value stands in a document.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Compared without regard to case, whatever the clause says.
    pub(super) ignore_case: bool,
}

/// The fields of one index.
#[derive(Debug)]
pub(crate) struct Mapping {
    nested: &'static [&'static str],
    kind: fn(&str) -> Option<Kind>,
}

/// The indexes of workflow templates and of runs: `metadata` and `spec` are nested.
pub(crate) static WORKFLOWS: Mapping = Mapping { nested: &["metadata", "spec"], kind: workflow_kind };

/// The index of the metastore: flat.
pub(crate) static METASTORE: Mapping = Mapping { nested: &[], kind: metastore_kind };

fn workflow_kind(name: &str) -> Option<Kind> {
    match name {
        "_id" => return Some(Kind::Keyword),
        "metadata.creationTimestamp" | "status.startedAt" | "status.finishedAt" => {
            return Some(Kind::Date);
        }
        _ => {}
    }
    let known = ["metadata", "spec", "status"].iter().any(|root| below(name, root));
    known.then(|| if name.ends_with(".keyword") { Kind::Keyword } else { Kind::Text })
}

fn metastore_kind(name: &str) -> Option<Kind> {
    match name {
        "__typeName.keyword" | "__state" | "__guid" | "qualifiedName" | "name.keyword" | "connectorName" | "adminUsers" => {
            Some(Kind::Keyword)
        }
        "__typeName" | "name" => Some(Kind::Text),
        "appWorkflowRunLabel"
        | "appWorkflowRunStatus"
        | "appWorkflowRunStartedBy"
        | "appWorkflowRunStoppedBy"
        | "appWorkflowRunAppName"
        | "appWorkflowRunAppWorkflowName"
        | "appWorkflowRunAppWorkflowSlug"
        | "appWorkflowRunAppWorkflowVersion"
        | "appWorkflowRunTemporalRunId" => Some(Kind::Keyword),
        "__timestamp" | "__modificationTimestamp" | "appWorkflowRunStartedAt" | "appWorkflowRunCompletedAt" => Some(Kind::Date),
        _ => None,
    }
}

fn below(name: &str, root: &str) -> bool {
    name.strip_prefix(root).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

impl Mapping {
    /// Looks a field up as it is named in a clause within the nested path `context`.
    pub(super) fn field(&self, name: &str, context: Option<&str>, clause: &str) -> Result<Field, Unsupported> {
        let Some(kind) = (self.kind)(name) else {
            return Err(Unsupported::new(format!("no mapping found for [{name}] in [{clause}]")));
        };
        if let Some(path) = context {
            self.nested(path)?;
        }
        let needed = self.nested.iter().copied().find(|path| below(name, path));
        match (needed, context) {
            (Some(needed), None) => {
                return Err(Unsupported::new(format!("[{name}] in [{clause}] needs nested path [{needed}]")));
            }
            (needed, Some(given)) if needed != Some(given) => {
                return Err(Unsupported::new(format!("[{name}] in [{clause}] is not below nested path [{given}]")));
            }
            _ => {}
        }
        let path = name.strip_suffix(".keyword").unwrap_or(name).to_owned();
        // The vendor's client asks for `Connection` in one place and for `CONNECTION` in another.
        let ignore_case = path == "__typeName";
        Ok(Field { path, kind, ignore_case })
    }

    /// Refuses a nested path that the index does not have.
    pub(super) fn nested(&self, path: &str) -> Result<(), Unsupported> {
        if self.nested.contains(&path) {
            Ok(())
        } else {
            Err(Unsupported::new(format!("failed to find nested object under path [{path}]")))
        }
    }
}
