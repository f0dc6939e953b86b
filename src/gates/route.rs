//! Which operation of which tool a message asks for, and in which work it stands. Unknown is refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use crate::call::method::Role;
use crate::call::{
    CallContext, CallId, Code, Draft, Incoming, McpCall, Message, Operation, Principal, PrincipalKey, Refusal,
    RestCall, Timestamp, Violation, encode_path,
};
use crate::config::{Config, ToolConfig, Workflow};

/// The routes of one configuration version.
#[derive(Debug)]
pub struct Routes {
    tools: HashMap<String, Tool>,
    workflows: BTreeMap<String, Workflow>,
    default_workflow: String,
    runs: Arc<Runs>,
}

#[derive(Debug)]
struct Tool {
    rest: matchit::Router<Arc<Operation>>,
    mcp: BTreeMap<String, Arc<Operation>>,
    methods: BTreeMap<String, Arc<Operation>>,
}

impl Routes {
    /// Routes of this configuration; `runs` outlives it.
    #[must_use]
    pub fn new(config: &Config, runs: Arc<Runs>) -> Self {
        Self {
            tools: config.tools.iter().map(|t| (t.tool.name.clone(), Tool::new(t))).collect(),
            workflows: config.workflows.clone(),
            default_workflow: config.default_workflow.clone(),
            runs,
        }
    }

    /// Finds the operation, if this principal may know of it.
    ///
    /// # Errors
    /// `unknown_tool` for what does not exist and for what may not be seen, alike; `invalid_arguments` for a workflow
    /// that is not the agent's; `rate_limited` for too many new runs.
    pub fn recognize(
        &self,
        principal: &Principal,
        incoming: Incoming,
        visible: impl Fn(&Operation) -> bool,
    ) -> Result<Draft, Refusal> {
        let tool = self.tools.get(&incoming.tool).ok_or_else(unknown)?;
        let (operation, path_values) = match &incoming.message {
            Message::Broken(refusal) => return Err(refusal.clone()),
            Message::Rest(rest) => tool.rest(rest)?,
            Message::Mcp(mcp) => (tool.mcp(mcp, &visible)?, Vec::new()),
        };
        if operation.role != Role::Handshake && !visible(&operation) {
            return Err(unknown());
        }
        let context = self.context(principal, &incoming)?;
        Ok(Draft { incoming, operation, path_values, context })
    }

    fn context(&self, principal: &Principal, incoming: &Incoming) -> Result<CallContext, Refusal> {
        let (hints, now) = (&incoming.hints, incoming.received);
        let name = hints.workflow.as_deref().unwrap_or(&self.default_workflow);
        let allowed = |w: &&Workflow| {
            w.agents
                .as_ref()
                .is_none_or(|all| all.iter().any(|a| *a == principal.agent || principal.groups.contains(a)))
        };
        let Some(workflow) = self.workflows.get(name).filter(allowed) else {
            let violation = Violation {
                pointer: String::new(),
                keyword: "workflow".into(),
                message: format!("`{name}` is not a workflow of this agent"),
            };
            let text = "the workflow is not one that this agent may name";
            return Err(Refusal::new(Code::InvalidArguments, text).with_errors(vec![violation]));
        };
        Ok(CallContext {
            workflow: workflow.name.clone(),
            stage: workflow.stage.clone(),
            run: self.runs.name(principal.key(), hints.run.as_deref(), now)?,
            step: hints.step.clone(),
            intent: hints.intent.clone(),
            confidence: hints.confidence,
            source_ip: Some(incoming.peer),
        })
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::UnknownTool, "no such tool or operation, or not one that you may see")
}

impl Tool {
    fn new(t: &ToolConfig) -> Self {
        let mut rest = matchit::Router::new();
        for (method, template, operation) in &t.rest {
            // The configuration has refused conflicts already.
            if rest.insert(format!("/{method}{template}"), Arc::clone(operation)).is_err() {
                tracing::error!(operation = %operation.name, "conflicting route left out");
            }
        }
        Self { rest, mcp: t.mcp.clone(), methods: t.methods.clone() }
    }

    fn rest(&self, call: &RestCall) -> Result<(Arc<Operation>, Vec<String>), Refusal> {
        // HEAD asks what GET would answer.
        let methods = [Some(&call.method), (call.method == Method::HEAD).then_some(&Method::GET)];
        // Encoded again, a segment can hold no slash and no brace: it matches as one segment.
        let path = encode_path(call.segments.iter().map(String::as_str));
        for method in methods.into_iter().flatten() {
            let key = format!("/{method}{path}");
            if let Ok(found) = self.rest.at(&key) {
                let operation = Arc::clone(found.value);
                let values = operation.path_params.iter().map(|p| found.params.get(p).map(decoded).unwrap_or_default());
                let values = values.collect();
                return Ok((operation, values));
            }
        }
        Err(unknown())
    }

    fn mcp(&self, call: &McpCall, visible: &impl Fn(&Operation) -> bool) -> Result<Arc<Operation>, Refusal> {
        if call.method == "tools/call" {
            let name = call.name.as_deref().unwrap_or_default();
            return self.mcp.get(name).cloned().ok_or_else(unknown);
        }
        let Some(operation) = self.methods.get(&call.method) else {
            let text = format!("the method `{}` is not let through here", call.method.escape_debug());
            return Err(Refusal::new(Code::UnknownTool, text));
        };
        // Who may see nothing of a tool is not told that there is a server.
        let mut others = self.mcp.values().chain(self.methods.values().filter(|o| o.role == Role::Method));
        if operation.role == Role::Handshake && !others.any(|o| visible(o)) {
            return Err(unknown());
        }
        Ok(Arc::clone(operation))
    }
}

fn decoded(encoded: &str) -> String {
    percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned()
}

const HOUR: Duration = Duration::from_secs(3600);
/// How the name of a run that names itself begins.
const OWN: &str = "run_";
/// New runs that one agent may begin in an hour: run budgets would mean nothing without a cap.
const NEW_RUNS: usize = 1_000;

/// Runs that were seen of late, by principal.
#[derive(Debug, Default)]
pub struct Runs(Mutex<HashMap<PrincipalKey, Seen>>);

#[derive(Debug, Default)]
struct Seen {
    own: Option<(String, Timestamp)>,
    /// Runs named by the agent, with first and last sight.
    named: HashMap<String, (Timestamp, Timestamp)>,
}

impl Runs {
    /// A run that names itself ends when it was idle for this long.
    pub const IDLE: Duration = Duration::from_secs(30 * 60);

    /// After a restart: the run that a stored call stands in goes on, unless a newer one is open.
    pub fn reopen(&self, principal: PrincipalKey, run: &str, last: Timestamp) {
        let own = run.strip_prefix(OWN).is_some_and(|id| format!("call_{id}").parse::<CallId>().is_ok());
        if !own {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(principal).or_default();
        if seen.own.as_ref().is_none_or(|(_, newest)| *newest < last) {
            seen.own = Some((run.to_owned(), last));
        }
    }

    /// The run that a call stands in: the one it names, or the one that is open for this principal.
    fn name(&self, principal: PrincipalKey, given: Option<&str>, now: Timestamp) -> Result<String, Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(principal).or_default();
        let Some(given) = given else { return Ok(seen.open(now)) };
        if let Some((_, last)) = seen.named.get_mut(given) {
            *last = now;
            return Ok(given.to_owned());
        }
        seen.named.retain(|_, (first, last)| now.since(*last) < Self::IDLE || now.since(*first) < HOUR);
        if seen.named.values().filter(|(first, _)| now.since(*first) < HOUR).count() >= NEW_RUNS {
            let text = format!("more than {NEW_RUNS} new runs in an hour");
            return Err(Refusal::new(Code::RateLimited, text).with_retry_after(Duration::from_secs(60)));
        }
        seen.named.insert(given.to_owned(), (now, now));
        Ok(given.to_owned())
    }

    /// Forgets principals that were idle for a day.
    pub fn tidy(&self, now: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, seen| {
            let own = seen.own.as_ref().is_some_and(|(_, last)| now.since(*last) < 24 * HOUR);
            own || seen.named.values().any(|(_, last)| now.since(*last) < 24 * HOUR)
        });
    }
}

impl Seen {
    fn open(&mut self, now: Timestamp) -> String {
        match &mut self.own {
            Some((name, last)) if now.since(*last) < Runs::IDLE => {
                *last = now;
                name.clone()
            }
            own => {
                let name = CallId::new().to_string().replacen("call_", OWN, 1);
                *own = Some((name.clone(), now));
                name
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PrincipalKey {
        PrincipalKey("o".into(), "a".into(), None)
    }

    #[test]
    fn a_run_without_a_name_lasts_until_it_was_idle() {
        let runs = Runs::default();
        let t = Timestamp::from_millis(0);
        let first = runs.name(key(), None, t).unwrap();
        assert_eq!(runs.name(key(), None, t.plus(Runs::IDLE / 2)).unwrap(), first);
        assert_ne!(runs.name(key(), None, t.plus(2 * Runs::IDLE)).unwrap(), first);
    }

    #[test]
    fn a_run_without_a_name_goes_on_over_a_restart() {
        let t = Timestamp::from_millis(0);
        let name = Runs::default().name(key(), None, t).unwrap();
        let runs = Runs::default();
        runs.reopen(key(), &name, t.plus(Duration::from_secs(1)));
        runs.reopen(key(), &CallId::new().to_string().replacen("call_", OWN, 1), t);
        runs.reopen(key(), "named-by-the-agent", t.plus(HOUR));
        assert_eq!(runs.name(key(), None, t.plus(Runs::IDLE / 2)).unwrap(), name);
    }

    #[test]
    fn new_names_are_no_way_round_the_run_budget() {
        let runs = Runs::default();
        let t = Timestamp::from_millis(0);
        for i in 0..NEW_RUNS {
            runs.name(key(), Some(&format!("r{i}")), t).unwrap();
        }
        assert!(runs.name(key(), Some("one-more"), t).is_err());
        assert!(runs.name(key(), Some("r1"), t).is_ok());
        assert!(runs.name(key(), Some("one-more"), t.plus(2 * HOUR)).is_ok());
    }
}
