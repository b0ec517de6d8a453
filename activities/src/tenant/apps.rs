//! Apps of a tenant of the native generation, under `/v1/app`: whether there is one of this slug, and submitting it.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::Exact;
use super::classify::Effect;
use super::runs::{Kind, Run};
use super::send::Call;
use super::target::{is_segment, segment};
use super::{Generation, Permit, Submission, Tenant};
use crate::failure::{Category, Failure};

/// The workflow engine's "no such version", which it also says of one that it does not know yet.
const NOT_YET_INDEXED: &str = "AE-WF-404-02";

/// An answer of which only its form matters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Object {}

/// The answer to a submission.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SubmittedApp {
    run_id: Exact,
    slug: Exact,
}

impl Tenant {
    /// Whether there is an app of this slug. A failure if the tenant has no apps at all.
    pub async fn has_app(&self, slug: &str) -> Result<bool, Failure> {
        let call = Call::get("apps.show", format!("api/service/v1/app/{}", segment(slug))).needs("the right to see apps");
        Ok(self.read_of_apps::<Object>(&call).await?.is_some())
    }

    /// Submits an app once. The permit was waited for before, and no other request is made first, so nothing stands between a caller's
    /// saved intent and this one.
    pub async fn submit_app(&self, permit: Permit<'_>, slug: &str, request_id: &str) -> Submission {
        let call = Call::post("apps.submit", format!("api/service/v1/app/{}/submit", segment(slug)), None)
            .with_request_id(request_id)
            .small()
            .needs("the right to run apps");
        let sent = self.send_effect(permit, &call).await;
        self.learn_who_was_denied(&call, &sent).await;
        match self.effect::<SubmittedApp>(&call, sent) {
            Effect::Applied(answer) => match answer.run_id.0.filter(|id| is_segment(id)) {
                Some(run) if answer.slug.0.as_deref().is_none_or(|named| named == slug) => {
                    Submission::Applied(Run::named(Kind::App, run, slug))
                }
                _ => Submission::UnknownFate(self.unexpected(&call, "it names no run of this app")),
            },
            Effect::AlreadyActive(failure) => Submission::AlreadyActive(failure),
            Effect::Conflict(failure) => Submission::NotApplied(failure.with_retryable(true)),
            Effect::NotApplied(failure) => {
                let soon_there = failure.source.tenant_code.as_deref() == Some(NOT_YET_INDEXED);
                Submission::NotApplied(if soon_there { failure.with_retryable(true) } else { failure })
            }
            Effect::UnknownFate(failure) => Submission::UnknownFate(failure),
        }
    }

    /// Reads something below `/v1/app`: None if it is not there. A tenant that has no apps at all says the same, so it is asked once
    /// whether it has any.
    pub(super) async fn read_of_apps<T: DeserializeOwned + Send + 'static>(&self, call: &Call) -> Result<Option<T>, Failure> {
        match self.read(call).await {
            Ok(body) => {
                self.learned(|learned| learned.has_apps = true);
                Ok(Some(body))
            }
            Err(failure) if is_absence(&failure) => self.must_have_apps().await.map(|()| None),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn must_have_apps(&self) -> Result<(), Failure> {
        if self.learned(|learned| learned.has_apps) {
            return Ok(());
        }
        let call = Call::get("apps.list", "api/service/v1/app?limit=1").needs("the right to see apps");
        match self.read::<Object>(&call).await {
            Ok(_) => {
                self.learned(|learned| learned.has_apps = true);
                Ok(())
            }
            Err(failure) if is_absence(&failure) => Err(self.lacks(Kind::App, failure)),
            Err(failure) => Err(failure),
        }
    }

    /// A failure if the settings say that this tenant has no such kind.
    pub(crate) fn should_have(&self, kind: Kind) -> Result<(), Failure> {
        let set = match (self.settings.generation, kind) {
            (Generation::Argo, Kind::App) => "argo",
            (Generation::Native, Kind::Workflow) => "native",
            _ => return Ok(()),
        };
        Err(self.unsupported(kind, format!("tenant `{}` is set to {set}, and has no {}s", self.name, kind.noun())))
    }

    /// The failure that an answer is which shows that this tenant knows no such kind at all.
    pub(crate) fn lacks(&self, kind: Kind, answer: Failure) -> Failure {
        let message = format!("tenant `{}` answers that it has no {}s: {}", self.name, kind.noun(), answer.message);
        self.unsupported(kind, message).with_source(answer.source)
    }

    fn unsupported(&self, kind: Kind, message: String) -> Failure {
        let (other, fields) = match kind {
            Kind::Workflow => (Kind::App, "`app` or `app_run`"),
            Kind::App => (Kind::Workflow, "`workflow`, `type` or `run`"),
        };
        Failure::new("generation.unsupported", Category::Unimplemented, message).suggest(format!(
            "give {fields} if tenants.{name}.generation is \"{}\", or set it to \"{}\" if that is what the tenant is",
            other.generation(),
            kind.generation(),
            name = self.name,
        ))
    }
}

/// Whether an answer may mean that the tenant does not have this part of the API.
pub(crate) fn is_absence(failure: &Failure) -> bool {
    failure.code == "tenant.not_found" || failure.code == "tenant.unsupported"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tenant::new_request_id;
    use crate::tenant::scripted::{Reply, Scripted, clock};

    async fn submission(reply: Reply) -> Submission {
        let server = Scripted::script([reply]).await;
        let tenant = server.tenant(&clock());
        tenant.submit_app(tenant.permit().await, "a", &new_request_id()).await
    }

    #[tokio::test]
    async fn a_version_that_is_not_there_yet_is_tried_again_and_an_app_that_is_not_there_is_not() {
        for (code, retryable) in [("AE-WF-404-02", true), ("AE-WF-404-01", false)] {
            let submitted = submission(Reply::json(404, &json!({"code": code, "message": "not found"}))).await;
            assert!(matches!(&submitted, Submission::NotApplied(failure) if failure.retryable == retryable), "{submitted:?}");
        }
    }

    #[tokio::test]
    async fn only_an_answer_that_names_a_run_of_that_app_says_that_it_was_started() {
        for (answer, applied) in [
            (json!({"slug": "a", "run_id": "r"}), true),
            (json!({"run_id": "r"}), true),
            (json!({"slug": "b", "run_id": "r"}), false),
            (json!({"slug": "a"}), false),
            (json!({"slug": "a", "run_id": ""}), false),
        ] {
            let submitted = submission(Reply::ok(&answer)).await;
            assert_eq!(matches!(submitted, Submission::Applied(_)), applied, "{answer}");
            assert_eq!(matches!(submitted, Submission::UnknownFate(_)), !applied, "{answer}");
        }
    }
}
