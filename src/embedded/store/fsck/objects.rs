//! What the schema of a file must hold: each table and index of this build, defined as this build defines it, and no trigger.

use rusqlite::Connection;

use super::finding::{Finding, Findings, Fix};
use super::tables::{damaged, quoted};
use crate::embedded::store::StoreError;
use crate::embedded::store::schema::{self, Object};

/// What was found about the schema.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) found: Findings,
    /// Every table and index that a check reads by is there.
    pub(super) can_be_read: bool,
}

/// Compares the schema of a file with the one that this build gives a new file.
pub(super) fn check(conn: &Connection) -> Result<Checked, StoreError> {
    let mut has = schema::objects(conn)?;
    let mut checked = Checked { found: Findings::default(), can_be_read: true };
    for expected in schema::expected_objects()? {
        let same_name = |object: &Object| object.name == expected.name && object.kind == expected.kind;
        let found = has.iter().position(same_name).map(|position| has.swap_remove(position));
        if found.as_ref() == Some(&expected) {
            continue;
        }
        checked.can_be_read = false;
        checked.found.add(differs(&expected, found.as_ref()));
    }
    has.iter().filter_map(foreign).for_each(|finding| checked.found.add(finding));
    Ok(checked)
}

/// A table or index that is missing, or defined in another way.
fn differs(expected: &Object, found: Option<&Object>) -> Finding {
    let Object { kind, name, table, sql } = expected;
    let (code, problem) = match found {
        None => ("schema.missing", format!("the {kind} {name} is missing")),
        Some(_) => ("schema.changed", format!("the {kind} {name} is not defined as this version defines it")),
    };
    if kind == "index" {
        let statements = format!("DROP INDEX IF EXISTS {}; {sql}", quoted(name));
        return Finding::new(code, table.clone(), problem, Fix::Schema(statements));
    }
    // What was in it is gone, or has another meaning: only a backup has it.
    damaged(problem)
}

/// Something that this build does not put into a file.
fn foreign(object: &Object) -> Option<Finding> {
    let Object { kind, name, table, .. } = object;
    match kind.as_str() {
        "trigger" => {
            let message = format!("the trigger {name} was not created by iolaus, and changes rows behind its back");
            Some(Finding::new("schema.foreign", table.clone(), message, Fix::Schema(format!("DROP TRIGGER {}", quoted(name)))))
        }
        "index" => {
            let message = format!("the index {name} was not created by iolaus: every write also changes it");
            Some(Finding::new("schema.foreign", table.clone(), message, Fix::Nothing).warning())
        }
        // A foreign table or view changes nothing in our tables.
        _ => None,
    }
}
