//! The review pages: forms that work without any script. A GET changes nothing.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, RawQuery, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode, Uri};
use serde::Deserialize;

use crate::call::{CallId, Digest, Tier};
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Filter, State as CallState};

use super::Desk;
use super::ask::Asker;
use super::decide::{Approve, Decision, Refuse};
use super::exact::Exact;
use super::filled::Filled;
use super::find;
use super::foreseen::Foreseen;
use super::kill;
use super::listing::Listing;
use super::problem::Problem;
use super::show::{Calls, Head, Inbox, Line, Message, Parts, Piece, Record, Sought};
use super::undo::Undo;
use super::who::{Visitor, Who};

const STYLE: &str = include_str!("../../templates/style.css");
const SCRIPT: &str = include_str!("../../templates/holdpoint.js");
/// Calls on one page.
const LINES: usize = 100;
/// Open holds on the inbox, those that expire first.
const INBOX: usize = 2_000;
/// Calls on the inbox whose outcome is unknown.
const UNKNOWN: usize = 100;

/// A problem as a page.
#[derive(Debug)]
pub(super) struct Wrong(Problem);

impl From<Problem> for Wrong {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<crate::call::Fault> for Wrong {
    fn from(fault: crate::call::Fault) -> Self {
        Self(fault.into())
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let mut text = self.0.detail().to_owned();
        self.0.reasons().iter().for_each(|r| text.push_str(&format!(" · {r}")));
        let page = Message { title: self.0.code().replace('_', " "), text };
        html(self.0.status(), &page)
    }
}

pub(super) type Answer = Result<Response, Wrong>;

pub(super) fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Problem::unavailable().into_response()
        }
    }
}

/// Where a person goes after signing in: a page of ours, by path alone.
pub(super) fn next_path(text: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_-".contains(&b);
    let ours = text.starts_with("/holds/") || text.starts_with("/calls");
    if ours && !text.contains("//") && text.bytes().all(plain) { text } else { "/" }
}

/// Nobody is signed in: a page asks for it, a form is refused.
pub(super) fn signed_out(method: &Method, uri: &Uri) -> Response {
    if *method == Method::GET || *method == Method::HEAD {
        let next = next_path(uri.path());
        let to = if next == "/" { "/sign-in".to_owned() } else { format!("/sign-in?next={next}") };
        return Redirect::to(&to).into_response();
    }
    Wrong(Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", "sign in first; nothing was decided"))
        .into_response()
}

/// One visit: the snapshot it is judged by, and who looks.
pub(super) struct Visit {
    pub(super) desk: Arc<Desk>,
    pub(super) snapshot: Arc<Snapshot>,
    visitor: Visitor,
}

impl Visit {
    pub(super) fn new(desk: Arc<Desk>, visitor: Visitor) -> Self {
        Self { snapshot: desk.snapshots.current(), desk, visitor }
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { snapshot: &self.snapshot, who: &self.visitor.who, now: self.desk.clock.now() }
    }

    pub(super) fn who(&self) -> &Who {
        &self.visitor.who
    }

    pub(super) fn head(&self) -> Head {
        let who = &self.visitor.who;
        let user = format!("{} ({})", who.person, who.groups.join(", "));
        let s = &self.snapshot;
        let digest: String = s.digests().1.to_string().chars().skip("sha256:".len()).take(8).collect();
        let rules = format!("policies {digest} since {}", s.since);
        let stopped = self.desk.store.pauses().iter().map(kill::Row::new).collect();
        Head { user, csrf: self.visitor.session.csrf.clone(), rules, observes: s.policies.observes(), stopped }
    }

    pub(super) async fn exact(&self, record: &CallRecord) -> Exact {
        Exact::of(&self.snapshot, &self.desk.store, record).await
    }

    pub(super) async fn record(&self, record: &CallRecord, is_hold: bool, problem: Option<&Problem>) -> Answer {
        self.look(record, is_hold, problem, None).await
    }

    /// The same, and perhaps the second look before a high one is approved.
    async fn look(
        &self,
        record: &CallRecord,
        is_hold: bool,
        problem: Option<&Problem>,
        again: Option<String>,
    ) -> Answer {
        self.desk.opened.note(&self.visitor.who.person, record);
        let exact = self.exact(record).await;
        let contents = find::contents(&self.desk, &self.asker(), record).await?;
        let pieces = record.evidence.iter().zip(&contents);
        let evidence = pieces.map(|(evidence, content)| Piece::new(record, evidence, content.as_deref())).collect();
        let foreseen = Foreseen::of(&self.snapshot, &self.desk.store, record, &exact).await;
        let foreseen = foreseen.as_ref();
        let undo = Undo::of(&self.snapshot, &self.desk.store, record, foreseen).await;
        let path = super::weigh::path(&self.desk, &self.asker(), record).await?;
        let like = &super::alike::Like::of(&self.desk, &self.asker(), record).await?;
        let (asker, undo, exact) = (self.asker(), &undo, &exact);
        let parts = Parts { asker, record, exact, foreseen, undo, like, path, evidence, is_hold, problem, again };
        let status = problem.map_or(StatusCode::OK, Problem::status);
        Ok(html(status, &Record::new(self.head(), parts)))
    }

    pub(super) async fn hold(&self, id: &str) -> Result<CallRecord, Problem> {
        find::hold(&self.desk, &self.asker(), id).await
    }

    pub(super) async fn call(&self, id: &str) -> Result<CallRecord, Problem> {
        find::call(&self.desk, &self.asker(), id).await
    }

    pub(super) fn decision<'a>(&'a self, record: &'a CallRecord) -> Decision<'a> {
        Decision {
            admin: &self.desk,
            snapshot: &self.snapshot,
            who: &self.visitor.who,
            record,
            // The digest that stands in the form binds what was seen.
            version: None,
        }
    }

    /// Back to the hold: as it stands now, or with what was wrong.
    pub(super) async fn after(&self, id: CallId, done: Result<CallRecord, Problem>) -> Answer {
        let path = format!("/holds/{}", id.hold());
        match done {
            Ok(_) => Ok(Redirect::to(&path).into_response()),
            Err(problem) => {
                let record = find::hold(&self.desk, &self.asker(), &id.to_string()).await?;
                self.record(&record, true, Some(&problem)).await
            }
        }
    }
}

pub(super) async fn style() -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

pub(super) async fn script() -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT).into_response()
}

pub(super) async fn inbox(State(desk): State<Arc<Desk>>, visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let sought = Listing::of_page(query.as_deref())?;
    let visit = Visit::new(desk, visitor);
    let (records, older) = find::waiting(&visit.desk, &visit.asker(), &sought, INBOX).await?;
    let asker = visit.asker();
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for record in &records {
        let line = Line::new(&asker, record, true);
        if asker.can_approve(record) { mine.push(line) } else { others.push(line) }
    }
    let (unknown, more) = find::list(&visit.desk, &asker, "call.view", find::unknown(UNKNOWN)).await?;
    let more = older || more.is_some();
    let unknown = unknown.iter().map(|r| Line::new(&asker, r, false)).collect();
    Ok(html(
        StatusCode::OK,
        &Inbox {
            head: visit.head(),
            sought: Sought::new(query.as_deref()),
            paused: super::tools::waiting(&visit.desk, &asker),
            unknown,
            groups: super::group::groups(&records, &asker),
            mine,
            others,
            more,
        },
    ))
}

pub(super) async fn hold(State(desk): State<Arc<Desk>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let visit = Visit::new(desk, visitor);
    let record = visit.hold(&id).await?;
    visit.record(&record, true, None).await
}

pub(super) async fn call(State(desk): State<Arc<Desk>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let visit = Visit::new(desk, visitor);
    let record = visit.call(&id).await?;
    visit.record(&record, false, None).await
}

pub(super) async fn policies(State(desk): State<Arc<Desk>>, visitor: Visitor) -> Answer {
    let visit = Visit::new(desk, visitor);
    visit.asker().permit_system(&["policy.view"])?;
    let s = &visit.snapshot;
    let (digest, since) = (s.digests().1.to_string(), s.since.to_string());
    let rows = super::policies::rows(&visit.desk, s);
    Ok(html(StatusCode::OK, &super::show::Policies { head: visit.head(), digest, since, rows }))
}

pub(super) async fn calls(State(desk): State<Arc<Desk>>, visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let listing = Listing::of_page(query.as_deref())?;
    let visit = Visit::new(desk, visitor);
    let asker = visit.asker();
    let filter = Filter { limit: LINES, ..listing.filter().clone() };
    let keep = |r: &CallRecord| asker.may("call.view", r) && listing.fits(&asker, r);
    let (records, next) = find::listed(&visit.desk, filter, keep).await?;
    let lines = records.iter().map(|r| Line::new(&asker, r, false)).collect();
    let sought = Sought::new(query.as_deref());
    let next = next.map(|id| sought.next(&id.to_string())).unwrap_or_default();
    Ok(html(StatusCode::OK, &Calls { head: visit.head(), sought, lines, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApproveForm {
    digest: Digest,
    group: Option<String>,
    justification: Option<String>,
    confirm: Option<String>,
    /// All of it was in view, says the page's script; or it is the second look of a page without.
    seen: Option<String>,
}

/// Without the script nobody knows what was in view: a high one is shown once more first.
fn look_again() -> Problem {
    let text = "Read all of it once more, then approve. Nothing was decided yet.";
    Problem::new(StatusCode::OK, "look_again", text)
}

pub(super) async fn approve(Path(id): Path<String>, Filled { visit, said: form }: Filled<ApproveForm>) -> Answer {
    let record = visit.hold(&id).await?;
    let ApproveForm { digest, group, justification, confirm, seen, .. } = form;
    if record.tier == Tier::High && seen.is_none() {
        return visit.look(&record, true, Some(&look_again()), Some(justification.unwrap_or_default())).await;
    }
    let done = visit.decision(&record).approve(Approve { digest, group, justification, confirm, grant: None }).await;
    visit.after(record.id, done).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectForm {
    digest: Digest,
    reason_code: Option<String>,
    message_to_agent: Option<String>,
    deny_alike_minutes: Option<String>,
}

fn minutes(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::malformed("`deny_alike_minutes` is not a number"))
}

pub(super) async fn reject(Path(id): Path<String>, Filled { visit, said: form }: Filled<RejectForm>) -> Answer {
    let record = visit.hold(&id).await?;
    let exact = visit.exact(&record).await;
    let said = Refuse {
        digest: form.digest,
        reason_code: form.reason_code.unwrap_or_default(),
        message_to_agent: form.message_to_agent,
        deny_alike_minutes: form.deny_alike_minutes.as_deref().map(minutes).transpose()?,
    };
    let done = visit.decision(&record).reject(said, &exact).await;
    visit.after(record.id, done).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WithdrawForm {
    reason: Option<String>,
}

pub(super) async fn withdraw(Path(id): Path<String>, Filled { visit, said: form }: Filled<WithdrawForm>) -> Answer {
    let record = visit.hold(&id).await?;
    let exact = visit.exact(&record).await;
    let done = visit.decision(&record).withdraw(form.reason.unwrap_or_default(), &exact).await;
    visit.after(record.id, done).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleForm {
    version: String,
    outcome: Option<String>,
    reason: Option<String>,
}

/// A word on what became of an unknown call. The version in the form binds it to what was seen: the first person's
/// word may have come meanwhile.
pub(super) async fn reconcile(Path(id): Path<String>, Filled { visit, said: form }: Filled<SettleForm>) -> Answer {
    let record = visit.call(&id).await?;
    let exact = visit.exact(&record).await;
    let version = form.version.parse().map_err(|_| Problem::malformed("`version` is not a version"))?;
    let decision = Decision { version: Some(version), ..visit.decision(&record) };
    let done = match form.outcome.as_deref() {
        Some("succeeded") => decision.reconcile(CallState::Succeeded, form.reason.unwrap_or_default(), &exact).await,
        Some("not_executed") => {
            decision.reconcile(CallState::NotExecuted, form.reason.unwrap_or_default(), &exact).await
        }
        _ => Err(Problem::invalid("choose what became of it")),
    };
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/calls/{}", record.id)).into_response()),
        Err(problem) => {
            let record = visit.call(&id).await?;
            visit.record(&record, false, Some(&problem)).await
        }
    }
}
