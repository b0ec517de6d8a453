//! Every type that an answer is decoded into, in one place: for tests that feed all of them with odd bodies.

use serde::de::DeserializeOwned;

use super::{Answer, Content, Sanitizer};
use crate::tenant::{
    app_runs, apps, auth, automation, connections, documents, login, oauth_clients, personas, preflight, roles, runs, tokens,
    workflows,
};

/// Decodes a body as the answer to every operation, and as a refusal, with one secret of ours known. Returns how many took it. For
/// fuzzers.
///
/// ```
/// # use iolaus_activities::tenant::decode_as_every_answer;
/// assert_eq!(decode_as_every_answer(b"{"), 0);
/// assert!(decode_as_every_answer(b"{}") > 0);
/// ```
pub fn decode_as_every_answer(body: &[u8]) -> usize {
    let sanitizer = Sanitizer::without(["a-secret-of-ours"]);
    let refused = answer(body);
    refused.refusal(&sanitizer, true);
    refused.mentions("AE-WF-409-03", &sanitizer);
    refused.claims_an_error(&sanitizer);
    let took = [
        takes::<login::Granted>(body, &sanitizer),
        takes::<auth::Me>(body, &sanitizer),
        takes::<preflight::Answered>(body, &sanitizer),
        takes::<documents::Hits<workflows::WorkflowHit>>(body, &sanitizer),
        takes::<documents::Hits<runs::RunHit>>(body, &sanitizer),
        takes::<runs::Started>(body, &sanitizer),
        takes::<runs::Stopping>(body, &sanitizer),
        takes::<apps::Object>(body, &sanitizer),
        takes::<apps::SubmittedApp>(body, &sanitizer),
        takes::<app_runs::AppRun>(body, &sanitizer),
        takes::<app_runs::NativeStatus>(body, &sanitizer),
        takes::<app_runs::Cancelling>(body, &sanitizer),
        takes::<documents::Entities<app_runs::RunEntity>>(body, &sanitizer),
        takes::<documents::Entities<personas::PersonaEntity>>(body, &sanitizer),
        takes::<automation::AutomationPage>(body, &sanitizer),
        takes::<connections::Shown>(body, &sanitizer),
        takes::<documents::Records<tokens::TokenRecord>>(body, &sanitizer),
        takes::<documents::Records<roles::RoleRecord>>(body, &sanitizer),
        takes::<documents::Records<oauth_clients::ClientRecord>>(body, &sanitizer),
        takes::<oauth_clients::ClientRecord>(body, &sanitizer),
    ];
    took.into_iter().filter(|took| *took).count()
}

fn takes<T: DeserializeOwned>(body: &[u8], sanitizer: &Sanitizer) -> bool {
    answer(body).decode::<T>(sanitizer, false, true).is_ok()
}

fn answer(body: &[u8]) -> Answer {
    let content = Content::Whole(body.to_vec());
    Answer { status: 200, date: None, retry_after: None, labelled_as_page: false, content, _budget: None }
}
