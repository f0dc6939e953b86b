//! What policy authors ask before a change rules: the answers of `holdpoint check`, `explain` and `replay`, from the
//! process that runs. Nothing here changes what is in force, and the disk is only read.
//!
//! None of it runs on the reactor, and one of each kind at a time; a replay ends when its asker hangs up or its time is
//! over, what loads policies is bounded by how many there are. A process that stops waits for none of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, oneshot};

use crate::call::{CallId, Fault, Timestamp};
use crate::config::{Config, duration};
use crate::policy::{self, Finding, Severity, Source};
use crate::snapshot::Snapshot;
use crate::tasks::Draining;
use crate::workbench::Bench;
use crate::workbench::case::Given;
use crate::workbench::check::Report;
use crate::workbench::history::{self, History, Limits, ReadError, Recorded};
use crate::workbench::replay::replay as replayed;
use crate::workbench::told::{Told, Wanted};

use super::api::{self, Answer, Asked};
use super::find;
use super::posted::Posted;
use super::problem::Problem;

/// Routes, without `/v1`, whose body may be a whole set of policies.
pub(super) const TAKE_POLICIES: [&str; 2] = ["/policies/check", "/replay"];

/// Policies of a set that is sent: each is checked against every action.
const MOST: usize = 1_500;
/// Bytes of one policy of a set that is sent: to look for mistakes in it takes longer than it grows.
const ONE: usize = 64 << 10;
/// Findings, moves by kind and moved calls of one answer.
const FINDINGS: usize = 1_000;
const MOVES: usize = 1_000;
const LISTED: usize = 200;
/// Mistakes that one refusal names.
const NAMED: usize = 20;
/// Calls of one replay, and bytes of their records: they are in memory at once.
const CALLS: usize = 100_000;
const BYTES: usize = 128 << 20;
/// A replay takes one core for at most so long.
const TIME: Duration = Duration::from_secs(60);
const SINCE: &str = "7d";

/// Who works at a bench, each one at a time.
#[derive(Debug)]
pub(super) struct Benches {
    explain: Arc<Semaphore>,
    check: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Default for Benches {
    fn default() -> Self {
        Self {
            explain: Arc::new(Semaphore::new(1)),
            check: Arc::new(Semaphore::new(1)),
            long: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Set when whoever asked has gone.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Works beside the reactor, where there is room for what policies may be; `go_on` says whether somebody still waits.
async fn beside<T: Send + 'static>(
    (draining, bench): (&Draining, &Arc<Semaphore>),
    work: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let Ok(turn) = Arc::clone(bench).try_acquire_owned() else {
        let text = "another such request is being answered; come again";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", text).with("retry_after_s", 2));
    };
    let gone = Gone(Arc::default());
    let flag = Arc::clone(&gone.0);
    let (to, done) = oneshot::channel();
    // No thread of the runtime: that would wait for it before the process ends.
    let thread = policy::roomy().spawn(move || {
        let worked = work(&|| !flag.load(Relaxed));
        drop(turn);
        if to.send(worked).is_err() {
            tracing::debug!("who asked has gone");
        }
    });
    thread.map_err(|e| Fault::caused("no thread for what was asked of policies", e))?;
    tokio::select! {
        done = done => {
            let lost = |_| Err(Fault::new("what was asked of policies could not be worked out").into());
            done.unwrap_or_else(lost)
        }
        () = draining.on() => {
            let text = "this proxy is about to stop; nothing was worked out";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text))
        }
    }
}

/// A whole set of policies: texts by the names of their files below the folder, `crm.cedar`, `teams/crm.cedar`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "PolicyFiles", extend("propertyNames" = {"maxLength": LONGEST, "pattern": PLAIN}))]
pub(super) struct Files(BTreeMap<String, String>);

/// Characters of a file's name, and what it looks like.
const LONGEST: usize = 255;
const PLAIN: &str = r"^([^./\\\x00-\x1f\x7f-\x9f][^/\\\x00-\x1f\x7f-\x9f]*/)*[^./\\\x00-\x1f\x7f-\x9f][^/\\\x00-\x1f\x7f-\x9f]*\.cedar$";

/// No name is ever opened; what would be no file of the folder is refused so that nobody takes it for one.
fn is_plain(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.contains(|c: char| c.is_control() || c == '\\')
    };
    name.ends_with(".cedar") && name.chars().count() <= LONGEST && name.split('/').all(plain)
}

impl Files {
    /// In the order of the folder, on which the digest stands: that of paths, not that of texts.
    fn sources(self) -> Result<Vec<Source>, Problem> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|(a, _), (b, _)| Path::new(a).cmp(Path::new(b)));
        let policies: usize = all.iter().map(|(_, text)| policy::count(text)).sum();
        let longest = all.iter().flat_map(|(_, text)| text.split(';')).map(str::len).max().unwrap_or_default();
        if longest > ONE {
            let text = format!("one policy is over {} KiB", ONE >> 10);
            return Err(Problem::invalid(format!("{text}: `holdpoint check --policies` takes more")));
        }
        if policies > MOST {
            let text = format!("about {policies} policies; a set that is sent may have {MOST}");
            return Err(Problem::invalid(format!("{text}: `holdpoint check --policies` takes more")));
        }
        match all.iter().find(|(name, _)| !is_plain(name)) {
            Some((name, _)) => Err(Problem::invalid(format!(
                "`{}` is no name of a file of policies, such as `crm.cedar` or `teams/crm.cedar`; tests are run by \
                 `holdpoint test`",
                name.escape_debug()
            ))),
            None => Ok(all.into_iter().map(|(name, text)| Source::new(name, text)).collect()),
        }
    }
}

fn given(files: Option<Files>) -> Result<Option<Vec<Source>>, Problem> {
    files.map(Files::sources).transpose()
}

/// Which policies to look at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CheckPolicies")]
pub(super) struct Check {
    /// The files as they are now, when absent.
    #[serde(default)]
    files: Option<Files>,
}

pub(super) async fn check(Posted { asked, said, .. }: Posted<Check>) -> Answer {
    asked.asker().permit_system(&["policy.view"])?;
    let (files, rehearse) = (given(said.files)?, Arc::clone(&asked.admin.rehearse));
    let dir = asked.config().policy_dir.clone();
    let work = move |_: &(dyn Fn() -> bool + Sync)| Ok(checked(rehearse(files.as_deref()), &dir));
    Ok(api::ok(&beside((&asked.admin.draining, &asked.admin.benches.check), work).await?, None))
}

fn checked(mut report: Report, dir: &Path) -> Value {
    let found = json!({
        "errors": report.errors(), "warnings": report.count(Severity::Warning),
        "notes": report.count(Severity::Note),
    });
    let accepted = report.errors() == 0;
    report.findings.sort_by_key(|f| f.severity);
    report.findings.truncate(FINDINGS);
    for file in report.findings.iter_mut().filter_map(|f| f.file.as_mut()) {
        // Files on the disk are named as those that are sent.
        if let Ok(below) = Path::new(file.as_str()).strip_prefix(dir) {
            *file = below.display().to_string();
        }
    }
    with(report.json(), [("accepted", json!(accepted)), ("found", found)])
}

fn with<const N: usize>(mut object: Value, more: [(&str, Value); N]) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    object
}

/// Which call to explain: `call` alone, or `op` with what else is known of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExplainCall")]
pub(super) struct Explain {
    /// A recorded call, by its whole id; a hold's id is its call's, too.
    #[serde(default)]
    call: Option<String>,
    /// An operation: `crm.refund`.
    #[serde(default)]
    op: Option<String>,
    /// Its arguments.
    #[serde(default)]
    input: Option<Map<String, Value>>,
    /// Who calls; `agent` when absent.
    #[serde(default)]
    agent: Option<String>,
    /// The agent's groups.
    #[serde(default)]
    groups: Option<Vec<String>>,
    /// In which workflow; the configuration's own when absent.
    #[serde(default)]
    workflow: Option<String>,
    /// In which stage, other than the workflow's own.
    #[serde(default)]
    stage: Option<String>,
    /// More facts, as the `defaults` of a test file; they rule over those above.
    #[serde(default)]
    given: Option<Given>,
}

/// Which of the two it is.
enum About {
    Recorded(Box<Recorded>),
    /// It has no record of its own; the journal may tell of it.
    Told(CallId),
    Imagined(Box<Wanted>),
}

impl Explain {
    async fn about(self, asked: &Asked) -> Result<About, Problem> {
        match self {
            Self {
                call: Some(id),
                op: None,
                input: None,
                agent: None,
                groups: None,
                workflow: None,
                stage: None,
                given: None,
            } => recorded(asked, &id).await,
            Self { call: None, op: Some(operation), input, agent, groups, workflow, stage, given } => {
                Ok(About::Imagined(Box::new(Wanted {
                    operation,
                    input: input.unwrap_or_default().into(),
                    agent: agent.unwrap_or_else(|| "agent".to_owned()),
                    groups: groups.unwrap_or_default(),
                    workflow,
                    stage,
                    given: given.unwrap_or_default(),
                })))
            }
            _ => Err(Problem::invalid("either `call` alone, or `op` with what else is known of a call")),
        }
    }
}

/// A call that this person may see.
///
/// What is redacted stays so: the question is made of the record as everybody reads it, never of the sealed arguments, and
/// where a policy reads a redacted member nothing is asked at all ([`Case::recorded`](crate::workbench::Case::recorded)).
/// So the answer follows from what the person may read anyway, and tells nothing of what stands behind it.
async fn recorded(asked: &Asked, id: &str) -> Result<About, Problem> {
    let id = find::full_id(id).ok_or_else(Problem::not_found)?;
    let asker = asked.asker();
    match asked.admin.store.get(id).await? {
        Some(r) if asker.may("call.view", &r) || (r.terms.is_some() && asker.may("hold.view", &r)) => {
            Ok(About::Recorded(Box::new(Recorded::from(&r))))
        }
        // Reads, and what policy refused, stand in the journal alone.
        None if asker.may_system("call.view") => Ok(About::Told(id)),
        _ => Err(Problem::not_found()),
    }
}

pub(super) async fn explain(Posted { asked, said, .. }: Posted<Explain>) -> Answer {
    asked.asker().permit_system(&["policy.view"])?;
    let about = said.about(&asked).await?;
    let snapshot = Arc::clone(asked.snapshot());
    let work = move |_: &(dyn Fn() -> bool + Sync)| explained(&snapshot, about);
    Ok(api::ok(&beside((&asked.admin.draining, &asked.admin.benches.explain), work).await?, None))
}

fn explained(snapshot: &Snapshot, about: About) -> Result<Value, Problem> {
    let bench = in_force(snapshot)?;
    let unexplainable = |why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_explainable", why);
    let mut told = match about {
        About::Recorded(call) => Told::recorded(&bench, *call).map_err(unexplainable)?,
        About::Told(id) => {
            let call = history::one(history::folder(&snapshot.config), id).map_err(unread)?;
            Told::recorded(&bench, call.ok_or_else(Problem::not_found)?).map_err(unexplainable)?
        }
        About::Imagined(wanted) => Told::wanted(&bench, *wanted).map_err(Problem::invalid)?,
    };
    // Where they stand is told as `GET /v1/policies` tells it.
    let places: HashMap<_, _> = snapshot.policies.loaded().policies().iter().map(|p| (&p.id, &p.at)).collect();
    for looked in &mut told.explained.looked {
        if let Some(at) = places.get(&looked.policy) {
            looked.at.clone_from(at);
        }
    }
    Ok(with(told.json(), [("policy_digest", json!(bench.policies.digest()))]))
}

/// The policies in force, whatever the disk has by now.
fn in_force(snapshot: &Snapshot) -> Result<Bench, Problem> {
    let bench = Bench::of(&snapshot.config, snapshot.policies.loaded().sources());
    bench.map_err(|found| {
        tracing::error!(mistakes = named(&found), "the policies in force do not load again");
        Fault::new("the policies in force do not load again").into()
    })
}

/// Mistakes, in a text that ends.
fn named(found: &[Finding]) -> String {
    let errors = found.iter().filter(|f| f.severity == Severity::Error);
    let mut lines: Vec<String> = errors.clone().take(NAMED).map(ToString::to_string).collect();
    let more = errors.count().saturating_sub(NAMED);
    if more > 0 {
        lines.push(format!("… and {more} more: `POST /v1/policies/check` has them"));
    }
    lines.join("\n")
}

fn unread(error: ReadError) -> Problem {
    match error {
        ReadError::Io(e) => Fault::caused("the journal could not be read", e).into(),
        ReadError::Bad(bad) => {
            let text = format!("{bad}: `holdpoint audit verify` says more");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "journal_damaged", text)
        }
    }
}

/// Which calls to judge again, and by what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReplayCalls")]
pub(super) struct Replay {
    /// How far back: `12h`, `30d`; a week when absent.
    #[serde(default)]
    #[schemars(length(max = 32), pattern(r"^[0-9]{1,13}(ms|s|m|h|d)$"))]
    since: Option<String>,
    /// The files as they are now, when absent.
    #[serde(default)]
    files: Option<Files>,
}

pub(super) async fn replay(Posted { asked, said, .. }: Posted<Replay>) -> Answer {
    // It tells of everybody's calls.
    asked.asker().permit_system(&["policy.view"])?;
    asked.asker().permit_system(&["audit.read"])?;
    let since = duration(said.since.as_deref().unwrap_or(SINCE)).map_err(Problem::invalid)?;
    let files = given(said.files)?;
    let (snapshot, clock) = (Arc::clone(asked.snapshot()), Arc::clone(&asked.admin.clock));
    let work = move |waits: &(dyn Fn() -> bool + Sync)| {
        let (since, end) = (clock.now().minus(since), clock.instant() + TIME);
        let answer = moves(&snapshot, files.as_deref(), since, &|| waits() && clock.instant() < end)?;
        Ok(with(answer, [("since", json!(since))]))
    };
    let mut answer = beside((&asked.admin.draining, &asked.admin.benches.long), work).await?;
    withhold(&asked, &mut answer).await?;
    Ok(api::ok(&answer, None))
}

fn moves(
    snapshot: &Snapshot,
    files: Option<&[Source]>,
    since: Timestamp,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Value, Problem> {
    let refused = |code, text: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, text);
    let config: &Config = &snapshot.config;
    let now = in_force(snapshot)?;
    let next = files.map_or_else(|| Bench::open(config, &config.policy_dir), |files| Bench::of(config, files));
    let next = next.map_err(|found| refused("policy_rejected", named(&found)))?;
    let limits = Limits { calls: CALLS, bytes: BYTES, go_on };
    let History { calls, cut, .. } = history::read(history::folder(config), since, limits).map_err(unread)?;
    let late = || {
        let text =
            format!("more than {} s; ask for a shorter time, or `holdpoint replay` on the machine", TIME.as_secs());
        refused("took_too_long", text)
    };
    if cut && !go_on() {
        return Err(late());
    }
    if cut {
        let text = format!("more than {CALLS} calls since then, or more than {} MiB of records", BYTES >> 20);
        return Err(refused(
            "too_many_calls",
            format!("{text}; ask for a shorter time, or `holdpoint replay` on the machine"),
        ));
    }
    // The calls of agents need the cores more than this does.
    let result = replayed(&calls, [&now, &next], 1, &|_| go_on()).ok_or_else(late)?;
    let mut answer = with(result.json(&calls, [&now, &next], LISTED), [("changed", json!(result.moved.len()))]);
    if let Some(kinds) = answer.get_mut("moves").and_then(Value::as_array_mut) {
        kinds.truncate(MOVES);
    }
    Ok(answer)
}

/// A title says more than the journal in lines does: it is for those who may see the call.
async fn withhold(asked: &Asked, answer: &mut Value) -> Result<(), Problem> {
    let listed = answer.get_mut("moved").and_then(Value::as_array_mut);
    for moved in listed.into_iter().flatten() {
        let id = moved.get("call").and_then(Value::as_str).and_then(|id| id.parse::<CallId>().ok());
        let record = match id {
            Some(id) => asked.admin.store.get(id).await?,
            None => None,
        };
        let asker = asked.asker();
        if !record.is_some_and(|r| asker.may("call.view", &r) || (r.terms.is_some() && asker.may("hold.view", &r)))
            && let Some(title) = moved.get_mut("title")
        {
            *title = "".into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(names: &[&str]) -> Result<Vec<String>, String> {
        let files = Files(names.iter().map(|n| ((*n).to_owned(), String::new())).collect());
        let sources = files.sources().map_err(|p| p.detail().to_owned())?;
        Ok(sources.into_iter().map(|s| s.name).collect())
    }

    #[tokio::test]
    async fn one_works_at_a_bench_and_stops_when_nobody_waits() {
        let (stop, flag) = tokio::sync::watch::channel(false);
        let (draining, bench) = (Draining::new(flag), Arc::new(Semaphore::new(1)));
        let (begun, begins) = std::sync::mpsc::channel();
        let (told, ends) = tokio::sync::oneshot::channel();
        let work = beside((&draining, &bench), move |waits| {
            begun.send(()).unwrap();
            while waits() {
                std::thread::yield_now();
            }
            told.send(()).unwrap();
            Ok(())
        });
        let first = tokio::select! {
            _ = work => None,
            begun = async { tokio::task::spawn_blocking(move || begins.recv()).await.unwrap() } => Some(begun),
        };
        first.unwrap().unwrap();
        ends.await.unwrap();
        let turn = bench.acquire().await.unwrap();
        let busy = beside((&draining, &bench), |_| Ok(())).await.unwrap_err();
        assert_eq!((busy.status().as_u16(), busy.code()), (429, "busy"));
        drop(turn);
        assert!(beside((&draining, &bench), |_| Ok(())).await.is_ok());
        let broken: Result<(), _> = beside((&draining, &bench), |_| panic!("ours")).await;
        assert_eq!(broken.unwrap_err().status().as_u16(), 503);
        assert!(beside((&draining, &bench), |_| Ok(())).await.is_ok(), "the turn is given back");
        stop.send_replace(true);
        let waits: Result<(), _> = beside((&draining, &bench), |waits| {
            while waits() {
                std::thread::yield_now();
            }
            Ok(())
        })
        .await;
        assert_eq!(waits.unwrap_err().status().as_u16(), 503, "who stops waits for none of it");
    }

    #[test]
    fn files_stand_as_they_do_in_a_folder_and_are_never_another_ones() {
        assert_eq!(sources(&["a-b.cedar", "a/b.cedar", "z.cedar"]).unwrap(), ["a/b.cedar", "a-b.cedar", "z.cedar"]);
        let pattern =
            jsonschema::validator_for(&json!({"type": "string", "pattern": PLAIN, "maxLength": LONGEST})).unwrap();
        let long = format!("{}.cedar", "x".repeat(250));
        let bad = ["", "a", ".cedar", "a/.cedar", "../x.cedar", "/x.cedar", "a//b.cedar", "a/./b.cedar", "a\\b.cedar"];
        let more = ["a\0.cedar", "a\u{85}.cedar", "a.cedar/", "x.test.yaml", "x.cedar\n", "C:\\x.cedar", &long];
        for name in bad.iter().chain(&more) {
            let why = sources(&["good.cedar", name]).unwrap_err();
            assert!(why.contains("is no name of a file of policies") && why.contains("holdpoint test"), "{why}");
            assert!(!pattern.is_valid(&json!(name)), "{name:?}");
        }
        for name in ["a.cedar", "teams/crm.v2.cedar", "ä b.cedar"] {
            assert!(sources(&[name]).is_ok() && pattern.is_valid(&json!(name)), "{name}");
        }
    }
}
