//! `holdpoint init`: a draft of configuration, schemas, policies and tests from what tools say of themselves.
//!
//! Everything here is pure: documents and tool lists come in, files as text go out; [`crate::cli`] reads and writes.
//! A draft is a guess: effects are marked as such, and what could not be taken over is named, never dropped in silence.

mod arguments;
mod cases;
mod convert;
mod document;
mod effects;
mod example;
mod mcp;
mod merge;
mod naming;
mod openapi;
mod parameter;
mod policies;
mod template;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

pub use document::{Document, server};
pub use effects::Guess;
pub use mcp::tool as mcp_tool;
pub use naming::{command_name, title_name, unique, url_name};
pub use openapi::tool as openapi_tool;

/// Where a drafted tool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// `http://` or `https://`, with a base path.
    Url(String),
    /// A program that speaks MCP over its standard input and output, with its arguments.
    Command(Vec<String>),
}

/// One tool of the draft.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its name; a legal one.
    pub name: String,
    /// Where it is.
    pub at: At,
    /// The lock file's text; a tool without one is a REST tool.
    pub lock: Option<String>,
    /// Request headers that its operations declare.
    pub headers: Vec<String>,
    /// The environment variable with its bearer token, where one was named.
    pub token: Option<String>,
    /// Environment variables that its command gets, by name.
    pub env: Vec<String>,
    /// It declares a scheme of authentication.
    pub secured: bool,
    /// Its operations, by name.
    pub operations: Vec<Operation>,
    /// What was left out, by reason.
    pub left_out: Remarks,
    /// What was taken over otherwise than it stands there, by kind.
    pub notes: Remarks,
}

/// One operation of the draft.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its name; a legal one, unique in its tool.
    pub name: String,
    /// REST: `POST /orders/:orderId/refunds`.
    pub matches: Option<String>,
    /// What it does, as far as one can guess.
    pub effect: Guess,
    /// What makes the guess uncertain.
    pub why: Option<&'static str>,
    /// The JSON Schema of its arguments.
    pub schema: Option<Value>,
    /// The schema says no more than `matches` does, so no file is needed for it.
    pub plain: bool,
    /// JSON Pointers to amount and currency.
    pub cost: Option<(String, String)>,
}

/// Names of operations, grouped by what is to be said of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks(pub BTreeMap<String, Vec<String>>);

impl Remarks {
    fn add(&mut self, what: impl Into<String>, who: &str) {
        let all = self.0.entry(what.into()).or_default();
        if !all.iter().any(|w| w == who) {
            all.push(who.to_owned());
        }
    }

    /// How many names there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// A file of the draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Below the folder of the draft.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
    /// Nobody but its owner may read it.
    pub secret: bool,
}

impl File {
    fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), secret: false }
    }
}

/// Fresh random secrets, as text.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The agent's key.
    pub agent: String,
    /// The reviewer's token.
    pub reviewer: String,
}

const AGENT: &str = "first-agent";
const AGENTS: &str = "agents";
const REVIEWER: &str = "first-reviewer";
const OWNERS: &str = "owners";
const WORKFLOW: &str = "work";

/// Every file of the draft but the generated Cedar schema, which `check` writes.
#[must_use]
pub fn files(tools: &[Tool], secrets: &Secrets) -> Vec<File> {
    let secret = |name: &str, text: &str| File { secret: true, ..File::new(format!("secrets/{name}"), text) };
    let mut all = vec![
        File::new("holdpoint.yaml", yaml::config(tools)),
        secret(AGENT, &secrets.agent),
        secret(REVIEWER, &secrets.reviewer),
        secret(".gitignore", "*\n"),
        File::new("policies/00-floor.cedar", policies::floor(tools)),
        File::new("policies/people.cedar", policies::people()),
        File::new("policies/floor.test.yaml", cases::text(tools)),
        File::new("policies/people.test.yaml", cases::people()),
    ];
    for tool in tools {
        all.extend(tool.lock.iter().map(|text| File::new(format!("{}.lock.json", tool.name), text.as_str())));
        let typed = tool.operations.iter().filter(|o| o.matches.is_some() && !o.plain);
        all.extend(typed.filter_map(|o| {
            let text = serde_json::to_string_pretty(o.schema.as_ref()?).unwrap_or_default();
            Some(File::new(yaml::schema_path(tool, o), text + "\n"))
        }));
    }
    all
}
