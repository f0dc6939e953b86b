//! What people do about a held call beside deciding: claims, comments, evidence, escalations. API and forms alike.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use http::header::{HeaderMap, IF_MATCH};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::is_hidden;
use crate::store::{CallRecord, Handle, HoldError, MAX_CLAIM, Wish, is_kind};

use super::Desk;
use super::api::{self, Answer, Asked};
use super::brought::{FilledEvidence, KIND, PostedEvidence};
use super::decide::{Decision, WORDS, words};
use super::exact::Exact;
use super::filled::{Filled, Nothing};
use super::page;
use super::posted::Posted;
use super::problem::Problem;
use super::view;
use super::who::Who;

/// How long a claim lasts when nobody says.
const CLAIM: u64 = 10;
/// Kinds of evidence that one request names.
const KINDS: usize = 10;
/// Longest name of those before whom a hold is brought, in characters.
const NAME: usize = 100;
/// What a person says who takes a hold in hand.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TakeInHand {
    /// 10 by default, 60 at most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 60))]
    minutes: Option<u64>,
    /// Even when another person has it in hand.
    #[serde(default)]
    take_over: bool,
}

/// What a person says to the others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Say {
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    text: String,
}

/// What a person asks to see.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskEvidence {
    #[schemars(length(min = 1, max = KINDS), inner(pattern(KIND)))]
    kinds: Vec<String>,
    #[serde(default)]
    #[schemars(length(max = WORDS))]
    message_to_agent: Option<String>,
}

/// Before whom a person brings it, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Escalate {
    /// The next rung of `reviews.escalate` by default.
    #[serde(default)]
    #[schemars(length(max = NAME))]
    to: Option<String>,
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

/// Text that is there, and not too long.
pub(super) fn given(what: &str, text: &str) -> Result<String, Problem> {
    words(what, Some(&text.to_owned()))?;
    match text.trim() {
        "" => Err(Problem::invalid(format!("`{what}` is empty"))),
        text => Ok(text.to_owned()),
    }
}

impl TakeInHand {
    fn wish(&self) -> Result<Wish, Problem> {
        let most = MAX_CLAIM.as_secs() / 60;
        let minutes = self.minutes.unwrap_or(CLAIM);
        if !(1..=most).contains(&minutes) {
            return Err(Problem::invalid(format!("`minutes` is 1 to {most}")));
        }
        Ok(Wish::Claim { lasts: Duration::from_secs(60 * minutes), take_over: self.take_over })
    }
}

impl AskEvidence {
    fn wish(self, exact: &Exact) -> Result<Wish, Problem> {
        words("message_to_agent", self.message_to_agent.as_ref())?;
        if self.kinds.is_empty() || self.kinds.len() > KINDS || !self.kinds.iter().all(|k| is_kind(k)) {
            return Err(Problem::invalid(format!("`kinds` names 1 to {KINDS} kinds of evidence, such as `ticket`")));
        }
        let message = self.message_to_agent.filter(|m| !m.trim().is_empty()).map(|m| exact.scrub(&m));
        Ok(Wish::AskEvidence { kinds: self.kinds, message })
    }
}

impl Decision<'_> {
    /// Does something about a hold that decides nothing.
    async fn handle(&self, action: &'static str, wish: Result<Wish, Problem>) -> Result<CallRecord, Problem> {
        let done = self.try_handle(action, wish).await;
        self.noted(action, done).await
    }

    async fn try_handle(&self, action: &'static str, wish: Result<Wish, Problem>) -> Result<CallRecord, Problem> {
        let wish = wish?;
        self.asker().permit(action, self.record)?;
        let aliases = self.who.aliases.iter().chain([&self.who.subject]).cloned().collect();
        let (id, person) = (self.record.id, self.who.person.clone());
        let asked = Handle { id, version: self.version, person, aliases, wish };
        self.admin.store.handle(asked).await.map_err(|e| self.problem(e))
    }

    pub(super) fn problem(&self, error: HoldError) -> Problem {
        Problem::of_hold(error, self.admin.clock.now())
    }

    /// Before whom it is brought when nobody says: the first rung that it has not been brought to.
    fn next_rung(&self) -> Option<String> {
        let rungs = &self.snapshot.config.reviews.escalate.rungs;
        let told = |to: &str| self.record.handling.iter().flat_map(|h| &h.escalations).any(|e| e.to == to);
        rungs.iter().find(|r| !told(&r.to)).or(rungs.last()).map(|r| r.to.clone())
    }

    fn escalation(&self, said: &Escalate, exact: &Exact) -> Result<Wish, Problem> {
        let reason = exact.scrub(&given("reason", &said.reason)?);
        let to = said.to.clone().filter(|t| !t.trim().is_empty()).or_else(|| self.next_rung());
        let to = to.ok_or_else(|| Problem::invalid("no `reviews.escalate` is configured: say before whom in `to`"))?;
        if to.chars().count() > NAME || to.chars().any(is_hidden) {
            return Err(Problem::invalid(format!("`to` is a name of at most {NAME} visible characters")));
        }
        Ok(Wish::Escalate { to, reason })
    }
}

/// For how long from now, who, or whom it was brought before: as JSON.
pub(super) fn json(asker: &super::ask::Asker<'_>, record: &CallRecord) -> Value {
    let handling = record.handling.as_deref().cloned().unwrap_or_default();
    json!({
        "claim": claim(asker, record),
        "escalation": handling.escalations,
        "evidence_requests": handling.requests,
        "comments": handling.comments,
    })
}

/// Who has it in hand.
pub(super) fn claim(asker: &super::ask::Asker<'_>, record: &CallRecord) -> Value {
    let claim = record.claim_at(asker.now);
    claim.map_or(Value::Null, |c| json!({"by": c.person, "at": c.at, "until": c.until}))
}

struct Taken {
    asked: Asked,
    record: CallRecord,
    version: Option<u64>,
}

impl Taken {
    async fn new(asked: Asked, version: Option<u64>, id: &str) -> Result<Self, Problem> {
        let record = asked.hold(id).await?;
        Ok(Self { asked, record, version })
    }

    fn decision(&self) -> Decision<'_> {
        self.asked.decision(&self.record, self.version)
    }

    fn answer(&self, done: &CallRecord) -> Answer {
        let mut out = view::decided(done, self.asked.asker().now);
        if let (Some(out), Value::Object(more)) = (out.as_object_mut(), json(&self.asked.asker(), done)) {
            out.extend(more);
        }
        Ok(api::ok(&out, Some(done.version)))
    }
}

pub(super) async fn claim_it(Path(id): Path<String>, Posted { asked, said, version }: Posted<TakeInHand>) -> Answer {
    let taken = Taken::new(asked, version, &id).await?;
    let done = taken.decision().handle("hold.claim", said.wish()).await?;
    taken.answer(&done)
}

pub(super) async fn release(
    State(admin): State<Arc<Desk>>,
    who: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let version = api::version(&headers, IF_MATCH)?;
    let taken = Taken::new(Asked::new(admin, who), version, &id).await?;
    let done = taken.decision().handle("hold.claim", Ok(Wish::Release)).await?;
    taken.answer(&done)
}

pub(super) async fn comments(State(admin): State<Arc<Desk>>, who: Who, Path(id): Path<String>) -> Answer {
    let asked = Asked::new(admin, who);
    let record = asked.hold(&id).await?;
    let items = record.handling.map(|h| h.comments).unwrap_or_default();
    Ok(api::ok(&json!({"items": items, "next": null}), Some(record.version)))
}

pub(super) async fn comment(Path(id): Path<String>, Posted { asked, said, version }: Posted<Say>) -> Answer {
    let taken = Taken::new(asked, version, &id).await?;
    let wish = given("text", &said.text).map(Wish::Comment);
    let done = taken.decision().handle("hold.comment", wish).await?;
    taken.answer(&done)
}

pub(super) async fn ask_evidence(
    Path(id): Path<String>,
    Posted { asked, said, version }: Posted<AskEvidence>,
) -> Answer {
    let taken = Taken::new(asked, version, &id).await?;
    let wish = said.wish(&taken.asked.exact(&taken.record).await);
    let done = taken.decision().handle("hold.comment", wish).await?;
    taken.answer(&done)
}

pub(super) async fn bring_evidence(Path(id): Path<String>, posted: PostedEvidence) -> Answer {
    let PostedEvidence { asked, brought, version } = posted;
    let taken = Taken::new(asked, version, &id).await?;
    let done = taken.decision().bring(brought).await?;
    taken.answer(&done)
}

pub(super) async fn escalate(Path(id): Path<String>, Posted { asked, said, version }: Posted<Escalate>) -> Answer {
    let taken = Taken::new(asked, version, &id).await?;
    let decision = taken.decision();
    let wish = decision.escalation(&said, &taken.asked.exact(&taken.record).await);
    let done = decision.handle("hold.escalate", wish).await?;
    taken.answer(&done)
}

/// The page's form: which kinds, as a person types them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskForm {
    kinds: Option<String>,
    message_to_agent: Option<String>,
}

/// The page's form: a box that was ticked, or not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TakeForm {
    take_over: Option<String>,
}

/// The page's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SayForm {
    text: Option<String>,
}

/// The page's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EscalateForm {
    to: Option<String>,
    reason: Option<String>,
}

pub(super) async fn claim_form(Path(id): Path<String>, Filled { visit, said }: Filled<TakeForm>) -> page::Answer {
    let record = visit.hold(&id).await?;
    let wish = TakeInHand { minutes: None, take_over: said.take_over.is_some() }.wish();
    visit.after(record.id, visit.decision(&record).handle("hold.claim", wish).await).await
}

pub(super) async fn release_form(Path(id): Path<String>, Filled { visit, .. }: Filled<Nothing>) -> page::Answer {
    let record = visit.hold(&id).await?;
    visit.after(record.id, visit.decision(&record).handle("hold.claim", Ok(Wish::Release)).await).await
}

pub(super) async fn comment_form(Path(id): Path<String>, Filled { visit, said }: Filled<SayForm>) -> page::Answer {
    let record = visit.hold(&id).await?;
    let wish = given("text", &said.text.unwrap_or_default()).map(Wish::Comment);
    visit.after(record.id, visit.decision(&record).handle("hold.comment", wish).await).await
}

pub(super) async fn ask_form(Path(id): Path<String>, Filled { visit, said }: Filled<AskForm>) -> page::Answer {
    let record = visit.hold(&id).await?;
    let kinds = said.kinds.unwrap_or_default();
    let kinds = kinds.split([',', ' ']).filter(|k| !k.is_empty()).map(str::to_owned).collect();
    let asked = AskEvidence { kinds, message_to_agent: said.message_to_agent };
    let wish = asked.wish(&visit.exact(&record).await);
    visit.after(record.id, visit.decision(&record).handle("hold.comment", wish).await).await
}

pub(super) async fn bring_form(
    Path(id): Path<String>,
    FilledEvidence { visit, brought }: FilledEvidence,
) -> page::Answer {
    let record = visit.hold(&id).await?;
    visit.after(record.id, visit.decision(&record).bring(brought).await).await
}

pub(super) async fn escalate_form(
    Path(id): Path<String>,
    Filled { visit, said }: Filled<EscalateForm>,
) -> page::Answer {
    let record = visit.hold(&id).await?;
    let said = Escalate { to: said.to, reason: said.reason.unwrap_or_default() };
    let decision = visit.decision(&record);
    let wish = decision.escalation(&said, &visit.exact(&record).await);
    visit.after(record.id, decision.handle("hold.escalate", wish).await).await
}
