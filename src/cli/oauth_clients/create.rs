//! `iolaus oauth-clients create`: everything that can go wrong is tried before the one request that creates, because the secret in its
//! answer is shown once.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use iolaus_activities::tenant::{NewOAuthClient, OAuthClient, OAuthCreation, Tenant, oauth_client_command, role_named};
use iolaus_activities::{Failure, shell_word};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::cli::App;
use crate::cli::exit::{Exit, Problem};
use crate::cli::input::utf8;
use crate::cli::render::table;
use crate::cli::signals::Signals;
use crate::cli::tenant_args::{OfTenant, not_empty};

/// Bytes that a secret may need on disk.
const ROOM: usize = 1024;

/// Create an OAuth client. Its secret is printed once, or written to a file
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus oauth-clients create --name ci --role Admin --secret-file ci.secret
  iolaus oauth-clients create --name reader --role '$member' --persona 'Data Stewards' --output json")]
pub(crate) struct Create {
    /// What people call it
    #[arg(long, value_name = "NAME", value_parser = not_empty())]
    name: String,
    /// Its role, by its label or its name, as in Admin or '$admin'
    #[arg(long, value_name = "ROLE", value_parser = not_empty())]
    role: String,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = utf8())]
    description: String,
    /// A persona, by its name or its qualified name; may be given several times
    #[arg(long = "persona", value_name = "PERSONA", value_parser = not_empty())]
    personas: Vec<String>,
    /// Write the secret to this file, which must not exist, readable by you alone, and do not print it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    tenant: OfTenant,
}

/// A client that was created. Never logged, as it may hold its secret.
#[derive(Serialize)]
struct Handed<'a> {
    client_id: &'a str,
    display_name: &'a str,
    created_by: Option<&'a str>,
    created_at: Option<&'a str>,
    /// Absent if it was written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<&'a Path>,
}

impl Create {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        if self.secret_file.is_none() {
            app.out.check_delivery().map_err(|lost| {
                let problem = Problem::usage(format!("{lost}; the secret of the client would be lost, and none was created"));
                problem.hint("write the secret to a file: --secret-file FILE")
            })?;
        }
        let tenant = self.tenant.open(app)?;
        let new = NewOAuthClient {
            display_name: self.name.clone(),
            description: self.description.clone(),
            role: role(&tenant, &self.role).await?,
            personas: personas(&tenant, &self.personas).await?,
        };
        let signals = Signals::listen()?;
        let file = self.secret_file.as_deref().map(SecretFile::create).transpose()?;
        let since = tenant.earliest(app.clock.now());
        match sent(app, &tenant, &new, &signals).await {
            OAuthCreation::Created(client, secret) => hand_over(app, &tenant, &client, &secret, file),
            OAuthCreation::NotCreated(failure) => {
                discard(file);
                Err(failure.into())
            }
            OAuthCreation::UnknownFate(failure) => {
                discard(file);
                Err(explain_loss(&tenant, &new, since, failure).await.into())
            }
        }
    }
}

/// Creates the client. Whoever interrupts it is told what would be lost, and can insist.
async fn sent(app: &App, tenant: &Tenant, new: &NewOAuthClient, signals: &Signals) -> OAuthCreation {
    let mut creation = std::pin::pin!(tenant.create_oauth_client(new));
    tokio::select! {
        biased;
        creation = &mut creation => return creation,
        () = signals.stopped() => {}
    }
    let list = oauth_client_command(tenant.name(), "list", "");
    app.out.note(&format!(
        "the request is sent, and its answer holds the secret: waiting for it. Interrupted again, it is lost; {list} then shows \
         whether there is a client"
    ));
    creation.await
}

/// The name of the role that is meant.
async fn role(tenant: &Tenant, wanted: &str) -> anyhow::Result<String> {
    let roles = tenant.roles().await?;
    match role_named(&roles, wanted) {
        Ok(role) => Ok(role.name.clone()),
        Err(labels) => {
            let problem = Problem::usage(format!("tenant {} has no role {wanted:?}", tenant.name()));
            Err(problem.hint(format!("the roles are {}", labels.join(", "))).into())
        }
    }
}

/// The qualified names of the personas that are meant.
async fn personas(tenant: &Tenant, wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let name = if wanted.starts_with("default/") { qualified(tenant, wanted).await? } else { persona(tenant, wanted).await? };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A qualified name, if there is such a persona.
async fn qualified(tenant: &Tenant, wanted: &str) -> anyhow::Result<String> {
    if let Some(persona) = tenant.persona(wanted).await? {
        return Ok(persona.qualified_name);
    }
    let problem = Problem::usage(format!("tenant {} has no persona with the qualified name {wanted:?}", tenant.name()));
    Err(problem.hint("give the persona's name as it is written there: --persona NAME").into())
}

async fn persona(tenant: &Tenant, wanted: &str) -> anyhow::Result<String> {
    let found = tenant.personas_named(wanted).await?;
    match found.as_slice() {
        [persona] => Ok(persona.qualified_name.clone()),
        [] => {
            let problem = Problem::usage(format!("tenant {} has no persona named {wanted:?}", tenant.name()));
            Err(problem.hint("give its name as it is written there, or its qualified name: --persona default/…").into())
        }
        several => {
            let problem = Problem::usage(format!("tenant {} has {} personas named {wanted:?}", tenant.name(), several.len()));
            let choices: Vec<_> =
                several.iter().map(|persona| format!("--persona {}", shell_word(&persona.qualified_name))).collect();
            Err(problem.hint(format!("choose one by its qualified name: {}", choices.join(" or "))).into())
        }
    }
}

/// A new file that only its owner can read, blank until the secret is there.
struct SecretFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> SecretFile<'a> {
    /// Makes the file and room in it, so that a full disk is found out while nothing is created.
    fn create(path: &'a Path) -> Result<Self, Problem> {
        let refused = |error: io::Error| {
            let problem = Problem::usage(format!("{} cannot be created: {error}", path.display()));
            problem.hint("--secret-file takes a file that does not exist, in a directory that does, on a disk with room")
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(refused)?;
        let mut created = Self { path, file };
        if let Err(error) = created.fill(&[b' '; ROOM]) {
            discard(Some(created));
            return Err(refused(error));
        }
        Ok(created)
    }

    fn write(&mut self, secret: &SecretString) -> io::Result<()> {
        let line = SecretString::from(format!("{}\n", secret.expose_secret()));
        self.file.rewind()?;
        self.fill(line.expose_secret().as_bytes())?;
        self.file.set_len(u64::try_from(line.expose_secret().len()).map_err(io::Error::other)?)?;
        self.file.sync_all()
    }

    fn fill(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()
    }
}

/// Removes the file that no secret came for.
fn discard(file: Option<SecretFile<'_>>) {
    if let Some(file) = file
        && let Err(error) = std::fs::remove_file(file.path)
    {
        tracing::warn!(file = %file.path.display(), %error, "a file without a secret is left over");
    }
}

/// Gives the secret to whoever asked. If the file takes it no more it is lost, and not printed: a file was asked for so that no log
/// of a terminal or a CI job holds it.
fn hand_over(
    app: &App,
    tenant: &Tenant,
    client: &OAuthClient,
    secret: &SecretString,
    file: Option<SecretFile<'_>>,
) -> anyhow::Result<Exit> {
    let lost = |problem: Problem| {
        let purge = oauth_client_command(tenant.name(), "purge", &client.client_id);
        problem.hint(format!("its secret is lost: {purge}"))
    };
    let mut written = None;
    if let Some(mut file) = file {
        let path = file.path;
        if let Err(error) = file.write(secret) {
            discard(Some(file));
            let message = format!("{} was created, but {} does not take its secret: {error}", client.client_id, path.display());
            return Err(lost(Problem::unresolved(message)).into());
        }
        written = Some(path);
    }
    let created = Handed {
        client_id: &client.client_id,
        display_name: &client.display_name,
        created_by: client.created_by.as_deref(),
        created_at: client.created_at.as_deref(),
        client_secret: written.is_none().then(|| secret.expose_secret()),
        secret_file: written,
    };
    if written.is_some() {
        app.out.outcome(&created, || text(&created));
        return Ok(Exit::Passed);
    }
    app.out.delivered(&created, || text(&created)).map_err(|error| {
        lost(Problem::unresolved(format!("{} was created, but stdout takes nothing: {error}", client.client_id)))
    })?;
    Ok(Exit::Passed)
}

fn text(created: &Handed<'_>) -> String {
    let file = created.secret_file.map(|file| file.display().to_string());
    let rows = [
        ("client id", Some(created.client_id)),
        ("name", Some(created.display_name)),
        ("created", created.created_at),
        ("created by", created.created_by),
        ("secret", created.client_secret),
        ("secret file", file.as_deref()),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?.to_owned()]));
    table(&["OAUTH CLIENT", ""], &rows.collect::<Vec<_>>())
}

/// Names what a creation of unknown fate may have left, and how to get rid of it. Its secret is lost either way.
async fn explain_loss(tenant: &Tenant, new: &NewOAuthClient, since: Timestamp, failure: Failure) -> Failure {
    let list = oauth_client_command(tenant.name(), "list", "");
    let (found, action) = match tenant.possibly_created(&new.display_name, since).await {
        Err(error) => (format!("whether a client was created could not be seen: {}", error.message), list),
        Ok(clients) => match clients.as_slice() {
            [] => ("no client of this name is there so far, but the request may still arrive".to_owned(), list),
            [client] => {
                let found = format!("possibly created, with a secret that is lost: {}", described(client));
                (found, oauth_client_command(tenant.name(), "purge", &client.client_id))
            }
            // One of them may be somebody else's.
            several => {
                let clients: Vec<_> = several.iter().map(described).collect();
                (format!("one of these was possibly created, with a secret that is lost: {}", clients.join(", ")), list)
            }
        },
    };
    let message = format!("{}; {found}", failure.message);
    Failure { message, ..failure }.suggest(action)
}

/// A client with what tells it from that of somebody else.
fn described(client: &OAuthClient) -> String {
    let at = client.created_at.as_deref().unwrap_or("at an unknown time");
    let by = client.created_by.as_deref().unwrap_or("somebody");
    format!("{} (created {at} by {by})", client.client_id)
}
