//! The stack of the Compose file, under a name of the test's own.

use serde_json::Value;

use super::engine::{self, Engine};

/// Dropping it takes it down with its volume.
pub(crate) struct Stack<'a> {
    engine: &'a Engine,
    compose: Vec<&'static str>,
    /// Options before the command: the profile.
    options: &'static str,
    /// What the file leaves to the environment.
    variables: Vec<String>,
}

impl<'a> Stack<'a> {
    /// Of the image of this build, and with any free port for the sandbox. None, said aloud, where there is no Compose.
    pub(crate) fn up(engine: &'a Engine, options: &'static str, variables: impl IntoIterator<Item = String>) -> Option<Self> {
        let forms = [vec!["docker", "compose"], vec!["docker-compose"]];
        let there = |form: &Vec<&str>| engine::attempt(form[0], form[1..].iter().chain(&["version"])).is_ok();
        let Some(compose) = forms.into_iter().find(there) else { return engine::skipped("no Docker Compose") };
        let ours = [format!("WORKER_IMAGE={}", engine.image()), "SANDBOX_PORT=0".to_owned()];
        let stack = Self { engine, compose, options, variables: ours.into_iter().chain(variables).collect() };
        stack.run("up --detach --no-build");
        Some(stack)
    }

    fn project(&self) -> String {
        format!("iolaus-test-{}", self.engine.id())
    }

    fn command(&self, line: &str) -> (&'static str, Vec<String>) {
        let file = engine::repository().join("docker-compose.yml");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let form = self.compose.iter().map(|word| (*word).to_owned());
        let options = ["--file".to_owned(), file.display().to_string(), "--project-name".to_owned(), self.project()];
        let variables = self.variables.iter().cloned();
        ("env", variables.chain(form).chain(options).chain(words(self.options)).chain(words(line)).collect())
    }

    pub(crate) fn run(&self, line: &str) -> String {
        let (program, arguments) = self.command(line);
        engine::run(program, arguments)
    }

    /// Runs the program in a service's container: its exit code, and its last line of stdout as JSON.
    pub(crate) fn iolaus(&self, service: &str, line: &str) -> (Option<i32>, Value) {
        let (program, arguments) = self.command(&format!("exec -T {service} iolaus {line}"));
        let (code, stdout) = engine::ended(program, arguments);
        (code, super::last_line(&stdout))
    }

    pub(crate) fn container(&self, service: &str) -> String {
        self.run(&format!("ps --quiet {service}"))
    }

    /// Takes it down, and fails if anything of it is left.
    pub(crate) fn down_without_a_trace(self, made: &[&str]) {
        let project = self.project();
        for list in made {
            assert!(!things(&project, list).is_empty(), "{list}");
        }
        drop(self);
        for list in ["container ls --all", "volume ls", "network ls"] {
            assert_eq!(things(&project, list), "", "{list}");
        }
    }

    /// How many containers it has, whether they run or not.
    pub(crate) fn size(&self) -> usize {
        things(&self.project(), "container ls --all").lines().count()
    }
}

/// What the engine has of a project, as one of its lists tells it.
fn things(project: &str, list: &str) -> String {
    let of_project = format!("label=com.docker.compose.project={project}");
    engine::run("docker", list.split_whitespace().chain(["--quiet", "--filter", &of_project]))
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        let (program, arguments) = self.command("down --volumes --remove-orphans --timeout 5");
        engine::forgive(engine::attempt(program, arguments));
    }
}
