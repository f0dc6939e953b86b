//! Grants: given with, or after, an approval; looked at; taken back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{CallId, Digest, GrantId, GrantOver, Loose, Timestamp, overlap};
use crate::gates::hold::GrantAsk;
use crate::store::{AuditNote, CallRecord, Grant, GrantUse};

use super::amend::person;
use super::api::{self, Answer, Asked};
use super::ask::Asker;
use super::decide::{Decision, WORDS, words};
use super::posted::Posted;
use super::problem::Problem;
use super::who::Who;
use super::{Admin, Desk};

/// Lines of one answer.
const LINES: usize = 200;

/// How one argument may differ, or that it may not.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["equals"]}, {"required": ["max"]}, {"required": ["any"]}]))]
pub(super) struct Pin {
    /// JSON Pointer of an argument.
    path: String,
    #[serde(default)]
    equals: Option<Value>,
    /// It may be an integer from 0 to this.
    #[serde(default)]
    #[schemars(range(min = 0))]
    max: Option<i64>,
    /// It may be anything, or missing: `true`.
    #[serde(default)]
    any: Option<bool>,
}

/// What an argument may add up to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sum {
    path: String,
    value: i64,
}

/// The grant that a reviewer wants to give; what is not said is as wide as policy allows, and every argument is pinned.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GrantWith")]
pub(super) struct Wanted {
    #[serde(default)]
    pub(super) pins: Vec<Pin>,
    #[serde(default)]
    pub(super) minutes: Option<u64>,
    #[serde(default)]
    pub(super) max_uses: Option<u32>,
    #[serde(default)]
    pub(super) max_sums: Vec<Sum>,
}

/// The same, from a call that was approved before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GiveGrant")]
pub(super) struct Given {
    /// The approved hold.
    hold: String,
    digest: Digest,
    #[serde(default)]
    #[schemars(length(max = WORDS))]
    justification: Option<String>,
    #[serde(default)]
    pins: Vec<Pin>,
    #[serde(default)]
    minutes: Option<u64>,
    #[serde(default)]
    max_uses: Option<u32>,
    #[serde(default)]
    max_sums: Vec<Sum>,
}

impl Pin {
    pub(super) fn any(path: &str) -> Self {
        Self { path: path.to_owned(), equals: None, max: None, any: Some(true) }
    }

    pub(super) fn max(path: &str, most: i64) -> Self {
        Self { path: path.to_owned(), equals: None, max: Some(most), any: None }
    }

    /// `None`: it stays as it is in the approved call.
    fn rule(&self, approved: &Value) -> Result<Option<Loose>, Problem> {
        match (&self.equals, self.max, self.any) {
            (Some(value), None, None) if approved.pointer(&self.path) == Some(value) => Ok(None),
            (Some(_), None, None) => {
                let text = format!("`{}` is another value in the approved call", self.path.escape_debug());
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "grant_wider_than_hold", text))
            }
            (None, Some(most), None) if most >= 0 => Ok(Some(Loose::Max(most))),
            (None, None, Some(true)) => Ok(Some(Loose::Any)),
            _ => Err(Problem::invalid("a pin has a `path` and one of `equals`, `max` (from 0 on) and `any: true`")),
        }
    }
}

impl Sum {
    pub(super) fn new(path: &str, value: i64) -> Self {
        Self { path: path.to_owned(), value }
    }
}

impl Decision<'_> {
    /// The grant that policy lets this person give. Nothing is written.
    pub(super) async fn drafted(&self, wanted: &Wanted, digest: Digest, why: Option<String>) -> Result<Grant, Problem> {
        words("justification", why.as_ref())?;
        self.asker().permit("grant.create", self.record)?;
        let mut loose = BTreeMap::new();
        for pin in &wanted.pins {
            if let Some(rule) = pin.rule(&self.record.arguments)?
                && loose.insert(pin.path.clone(), rule).is_some()
            {
                return Err(Problem::invalid(format!("`{}` stands twice", pin.path.escape_debug())));
            }
        }
        let minutes = wanted.minutes.map(|m| m.checked_mul(60).map(Duration::from_secs));
        let lasts = minutes.map(|m| m.ok_or_else(|| Problem::invalid("`minutes` is too large"))).transpose()?;
        let ask = GrantAsk {
            id: self.record.id,
            digest,
            loose,
            lasts,
            max_uses: wanted.max_uses,
            sums: wanted.max_sums.iter().map(|s| (s.path.clone(), s.value)).collect(),
            reason: why,
            by: person(self.who),
            channel: self.who.channel,
        };
        let drafted = (self.admin.grant)(ask).await.ok_or_else(Problem::unavailable)?;
        drafted.map_err(|denied| self.denied(denied))
    }

    /// Gives a grant for calls like one that is approved already.
    pub(super) async fn grant(
        &self,
        wanted: &Wanted,
        digest: Digest,
        why: Option<String>,
    ) -> Result<Arc<Grant>, Problem> {
        match self.try_grant(wanted, digest, why).await {
            Ok(grant) => Ok(grant),
            Err(problem) => {
                self.noted("grant.create", Err(problem.clone())).await?;
                Err(problem)
            }
        }
    }

    async fn try_grant(&self, wanted: &Wanted, digest: Digest, why: Option<String>) -> Result<Arc<Grant>, Problem> {
        self.is_version()?;
        let grant = self.drafted(wanted, digest, why).await?;
        self.admin.store.give_grant(grant).await.map_err(|e| Problem::of_hold(e, self.admin.clock.now()))
    }
}

/// What may differ and what may not, argument by argument: members of objects one by one where one of them is loosened.
pub(super) fn pins(grant: &Grant) -> Vec<(String, Option<Loose>, Value)> {
    let mut all = Vec::new();
    pinned(grant, "", &grant.arguments, &mut all);
    all
}

fn pinned(grant: &Grant, path: &str, value: &Value, all: &mut Vec<(String, Option<Loose>, Value)>) {
    if let Some(rule) = grant.loose.get(path) {
        return all.push((path.to_owned(), Some(*rule), value.clone()));
    }
    let below = path.is_empty() || grant.loose.keys().any(|loose| overlap(loose, path));
    match value.as_object().filter(|_| below) {
        Some(members) => members.iter().for_each(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            pinned(grant, &format!("{path}/{name}"), value, all);
        }),
        None => all.push((path.to_owned(), None, value.clone())),
    }
}

/// A grant as JSON.
pub(super) fn shown(found: &GrantUse, now: Timestamp) -> Value {
    let g = &found.grant;
    let pin = |(path, rule, value): (String, Option<Loose>, Value)| match rule {
        None => json!({"path": path, "equals": value}),
        Some(Loose::Max(most)) => json!({"path": path, "max": most}),
        Some(Loose::Any) => json!({"path": path, "any": true}),
    };
    let sum = |(path, most): (&String, &i64)| json!({"path": path, "value": most, "sum": found.sums.get(path)});
    let over = found.over_at(now);
    json!({
        "id": g.id, "op": g.operation, "tool": g.tool, "agent": g.principal.1, "on_behalf_of": g.principal.2,
        "workflow": g.workflow, "title": g.title,
        "pins": pins(g).into_iter().map(pin).collect::<Vec<_>>(),
        "max_uses": g.max_uses, "used": found.used, "max_sums": g.sums.iter().map(sum).collect::<Vec<_>>(),
        "created": g.created, "expires": g.expires, "from_hold": g.from.hold(), "by": g.by, "channel": g.channel,
        "justification": g.reason, "policies": g.leans.forbids.keys().collect::<Vec<_>>(),
        "state": if over.is_some() { "ended" } else { "live" },
        "ended": over.map(|why| json!({
            "why": why.as_str(), "at": g.ended.as_ref().map(|end| end.at),
            "by": g.ended.as_ref().and_then(|end| end.by.clone()),
        })),
    })
}

/// Whether this person may see it: who may see the hold that it comes from, who gave it, who may take it back.
async fn may_see(admin: &Admin, asker: &Asker<'_>, grant: &Grant) -> Result<bool, Problem> {
    if asker.gave(grant) || asker.may_system("grant.revoke") {
        return Ok(true);
    }
    let record = admin.store.get(grant.from).await?;
    Ok(record.is_some_and(|record| asker.may("hold.view", &record)))
}

/// Grants that this person may see, newest first.
pub(super) async fn visible(admin: &Admin, asker: &Asker<'_>) -> Result<Vec<GrantUse>, Problem> {
    let mut seen = Vec::new();
    for found in admin.store.grants().await? {
        if may_see(admin, asker, &found.grant).await? {
            seen.push(found);
        }
    }
    Ok(seen)
}

/// One that this person may see.
async fn one(admin: &Admin, asker: &Asker<'_>, id: &str) -> Result<GrantUse, Problem> {
    let id: GrantId = id.parse().map_err(|_| Problem::not_found())?;
    let found = admin.store.grants().await?.into_iter().find(|g| g.grant.id == id);
    let found = found.ok_or_else(Problem::not_found)?;
    if may_see(admin, asker, &found.grant).await? { Ok(found) } else { Err(Problem::not_found()) }
}

/// Takes one back: who gave it may, and whom policy lets.
pub(super) async fn take_back(admin: &Admin, asker: &Asker<'_>, id: &str) -> Result<GrantUse, Problem> {
    let found = one(admin, asker, id).await?;
    let grant = &found.grant;
    if !asker.gave(grant) && !asker.may_system("grant.revoke") {
        let text = "no policy lets you do this (`grant.revoke`)";
        let refused = Problem::new(StatusCode::FORBIDDEN, "forbidden", text);
        let more = BTreeMap::from([
            ("action".to_owned(), json!("grant.revoke")),
            ("grant".to_owned(), json!(grant.id)),
            ("by".to_owned(), json!(asker.who.person)),
        ]);
        admin.store.append(AuditNote::plain("admin.refused", more), false).await?;
        return Err(refused);
    }
    let revoked = |g: &Grant| (g.id == grant.id).then_some(GrantOver::Revoked);
    if admin.store.end_grants(Some(&asker.who.person), revoked).await?.is_empty() {
        let why = found.over_at(asker.now).map_or("ended", GrantOver::as_str);
        let text = format!("it lets nothing pass any more ({why})");
        return Err(Problem::new(StatusCode::CONFLICT, "already_ended", text));
    }
    one(admin, asker, id).await
}

pub(super) async fn list(State(admin): State<Arc<Desk>>, who: Who, RawQuery(query): RawQuery) -> Answer {
    let (mut state, mut op, mut agent, mut before, mut limit) = (None, None, None, None, 50);
    for (name, value) in api::parameters(query.as_deref(), &["state", "op", "agent", "limit", "cursor"])? {
        match name.as_str() {
            "state" if value == "live" || value == "ended" => state = Some(value == "live"),
            "state" => return Err(Problem::invalid("`state` is live or ended")),
            "op" => op = Some(value),
            "agent" => agent = Some(value),
            "limit" => {
                let given = value.parse().ok().filter(|n| (1..=LINES).contains(n));
                limit = given.ok_or_else(|| Problem::invalid(format!("`limit` is 1 to {LINES}")))?;
            }
            _ => {
                let id = value.parse::<GrantId>();
                before = Some(id.map_err(|_| Problem::invalid("`cursor` is not one that was given here"))?);
            }
        }
    }
    let asked = Asked::new(admin, who);
    let asker = asked.asker();
    let mut all = visible(&asked.admin, &asker).await?;
    all.retain(|g| {
        state.is_none_or(|live| g.over_at(asker.now).is_none() == live)
            && op.as_ref().is_none_or(|op| g.grant.operation == *op)
            && agent.as_ref().is_none_or(|agent| g.grant.principal.1 == *agent)
            && before.is_none_or(|before| g.grant.id < before)
    });
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(|g| g.grant.id);
    let items: Vec<Value> = all.iter().map(|g| shown(g, asker.now)).collect();
    Ok(api::ok(&json!({"items": items, "next": next}), None))
}

pub(super) async fn show(State(admin): State<Arc<Desk>>, who: Who, Path(id): Path<String>) -> Answer {
    let asked = Asked::new(admin, who);
    let found = one(&asked.admin, &asked.asker(), &id).await?;
    Ok(api::ok(&shown(&found, asked.asker().now), None))
}

pub(super) async fn revoke(State(admin): State<Arc<Desk>>, who: Who, Path(id): Path<String>) -> Answer {
    let asked = Asked::new(admin, who);
    let found = take_back(&asked.admin, &asked.asker(), &id).await?;
    Ok(api::ok(&shown(&found, asked.asker().now), None))
}

pub(super) async fn give(Posted { asked, said, version }: Posted<Given>) -> Answer {
    let Given { hold, digest, justification, pins, minutes, max_uses, max_sums } = said;
    let record = asked.hold(&hold).await?;
    let wanted = Wanted { pins, minutes, max_uses, max_sums };
    let decision = asked.decision(&record, version);
    let grant = decision.grant(&wanted, digest, justification).await?;
    Ok(api::ok(&one_of(&asked, grant.id).await?, None))
}

async fn one_of(asked: &Asked, id: GrantId) -> Result<Value, Problem> {
    let found = asked.admin.store.grants().await?.into_iter().find(|g| g.grant.id == id);
    found.map(|g| shown(&g, asked.asker().now)).ok_or_else(Problem::unavailable)
}

/// The newest grant that comes from a call.
pub(super) async fn from(admin: &Admin, call: CallId) -> Result<Option<GrantUse>, Problem> {
    Ok(admin.store.grants().await?.into_iter().find(|g| g.grant.from == call))
}

/// The members that a decision's answer has more when a grant was given with it.
pub(super) async fn given_with(asked: &Asked, record: &CallRecord) -> Result<Map<String, Value>, Problem> {
    let found = from(&asked.admin, record.id).await?;
    Ok(found.map(|g| ("grant".to_owned(), shown(&g, asked.asker().now))).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State as CallState;
    use crate::store::fixtures;

    #[test]
    fn every_argument_is_listed_as_it_is_pinned_or_loosened() {
        let mut record = fixtures::record(CallState::Held, "f", None);
        record.arguments = json!({"amount": 5, "a/b": 1, "who": {"id": 7, "name": "Ann"}, "tags": [1]}).into();
        let mut grant = fixtures::grant(&record, 9, 2, 20);
        grant.loose.insert("/who/name".into(), Loose::Any);
        let all = shown(&GrantUse { grant: Arc::new(grant), used: 1, sums: BTreeMap::new() }, fixtures::START);
        let wanted = json!([
            {"path": "/amount", "max": 9}, {"path": "/a~1b", "equals": 1}, {"path": "/tags", "equals": [1]},
            {"path": "/who/id", "equals": 7}, {"path": "/who/name", "any": true},
        ]);
        let mut found = all["pins"].as_array().unwrap().clone();
        found.sort_by_key(|p| p["path"].to_string());
        assert_eq!((Value::Array(found), &all["state"]), (wanted, &json!("live")));
    }

    #[test]
    fn a_pin_says_one_thing() {
        let approved = json!({"a": 1});
        let rule = |pin: Value| serde_json::from_value::<Pin>(pin).unwrap().rule(&approved);
        assert_eq!(rule(json!({"path": "/a", "equals": 1})).unwrap(), None);
        assert_eq!(rule(json!({"path": "/a", "max": 4})).unwrap(), Some(Loose::Max(4)));
        assert_eq!(rule(json!({"path": "/a", "any": true})).unwrap(), Some(Loose::Any));
        assert_eq!(rule(json!({"path": "/a", "equals": 2})).unwrap_err().code(), "grant_wider_than_hold");
        for wrong in [json!({"path": "/a"}), json!({"path": "/a", "any": false}), json!({"path": "/a", "max": -1})] {
            assert_eq!(rule(wrong).unwrap_err().code(), "invalid_arguments");
        }
    }
}
