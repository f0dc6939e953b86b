//! Folds the journal into calls with all their versions, and checks what the log alone can show: numbers, epochs, the
//! diagram of states, ledgers, recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdpoint::call::Timestamp;
use serde_json::Value;

use super::{Findings, History, KEEP, is_final, is_never, list, number, text};

/// A record after one step.
#[derive(Debug, Clone)]
pub struct Version {
    pub seq: u64,
    /// Epoch of the process that wrote it.
    pub epoch: u64,
    pub step: String,
    pub record: Value,
}

impl Version {
    pub fn state(&self) -> &str {
        text(&self.record, "/state")
    }
}

/// One call, oldest version first; never empty.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub id: String,
    pub versions: Vec<Version>,
}

impl Call {
    pub fn last(&self) -> &Version {
        self.versions.last().expect("a call without a record")
    }

    pub fn state(&self) -> &str {
        self.last().state()
    }

    pub fn begun(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(|v| v.step.starts_with("begun"))
    }

    /// What declares it idempotent, so that the proxy may send it again: `header`, `repeatable`, or nothing.
    pub fn declared(&self) -> &str {
        text(&self.last().record, "/resend/by")
    }

    /// Whether the process of `epoch`, or one before it, had it in one of these states.
    pub fn was(&self, states: &[&str], epoch: u64) -> bool {
        self.versions.iter().any(|v| v.epoch <= epoch && states.contains(&v.state()))
    }
}

/// What the journal says.
#[derive(Debug, Default)]
pub struct Folded {
    pub calls: BTreeMap<String, Call>,
    pub artifacts: BTreeMap<String, u64>,
    /// When an outcome was first handed to its agent.
    pub collected: BTreeMap<String, String>,
    /// Calls that a note is about, and the first epoch that wrote one.
    pub noted: BTreeMap<String, u64>,
    /// By its reason: what an operator stopped, let go on or gave more room, and in which epoch.
    pub switched: BTreeMap<String, (String, u64)>,
    /// The log begins with a snapshot: what was before is not here.
    pub partial: bool,
}

#[derive(Default)]
struct Fold {
    out: Folded,
    epoch: u64,
    /// Between an epoch and its recovery record.
    recovering: bool,
    closed: bool,
    /// The index had followed the journal once.
    indexed: bool,
    died: BTreeSet<String>,
    ledgers: BTreeMap<String, (i64, i64)>,
    /// What was added to their limits.
    extra: BTreeMap<String, i64>,
    /// Each as it was written last.
    grants: BTreeMap<String, Value>,
    /// Scopes that are stopped.
    stopped: BTreeSet<String>,
}

pub fn fold(history: &History, found: &mut Findings) -> Folded {
    let mut fold = Fold::default();
    let mut before: Option<u64> = None;
    for line in &history.lines {
        if let Some(seq) = before {
            found.check(line.seq == seq + 1, "I13", || format!("record {} follows record {seq}", line.seq));
        }
        fold.line(line.seq, &line.event, before.is_none(), history.tampered, found);
        before = Some(line.seq);
    }
    if history.closed {
        found.check(fold.closed, "I14", || "the log does not end with its orderly end".into());
        fold.ended(found);
    }
    fold.out
}

impl Fold {
    fn line(&mut self, seq: u64, event: &Value, first: bool, tampered: bool, found: &mut Findings) {
        let kind = text(event, "/type");
        let (closed, began) = (std::mem::take(&mut self.closed), self.epoch);
        if closed && kind != "epoch" && kind != "snapshot" {
            found.add("I22", format!("record {seq} ({kind}) stands behind an orderly end without an epoch"));
        }
        match kind {
            "snapshot" if first => self.snapshot(seq, event),
            "snapshot" => self.closed = closed,
            "epoch" => self.new_epoch(seq, number(event, "/epoch"), found),
            "recovery" => self.recovered(seq, event, tampered, found),
            "closed" => {
                found.check(number(event, "/epoch") == began, "I15", || format!("record {seq} closes another epoch"));
                self.closed = true;
            }
            "call" | "step" => self.call(seq, event, found),
            "collected" => {
                let id = text(event, "/id");
                let known = self.out.calls.get(id).is_none_or(|c| is_final(c.state()));
                found.check(known, "I13", || format!("record {seq}: an open call was collected"));
                self.out.collected.entry(id.to_owned()).or_insert_with(|| text(event, "/at").to_owned());
            }
            "artifact" => {
                let id = text(event, "/artifact/evidence/id").to_owned();
                self.out.artifacts.entry(id).or_insert(self.epoch);
            }
            "grant" => self.grant(&event["grant"]),
            "paused" => self.switch(text(event, "/pause/scope"), text(event, "/pause/reason"), true),
            "topped_up" => self.top_up(&event["top_up"]),
            "resumed" => self.switch(text(event, "/scope"), text(event, "/reason"), false),
            "sample" | "forgotten" => {}
            "note" => {
                if let Some(id) = event.pointer("/note/call").and_then(Value::as_str) {
                    self.out.noted.entry(id.to_owned()).or_insert(self.epoch);
                }
            }
            other => found.add("I13", format!("record {seq} is of an unknown kind `{other}`")),
        }
    }

    fn switch(&mut self, scope: &str, reason: &str, on: bool) {
        self.out.switched.insert(reason.to_owned(), (scope.to_owned(), self.epoch));
        if on {
            self.stopped.insert(scope.to_owned());
        } else {
            self.stopped.remove(scope);
        }
    }

    fn top_up(&mut self, top_up: &Value) {
        *self.extra.entry(top_up["ledger"].to_string()).or_default() += top_up["amount"].as_i64().unwrap_or(0);
        self.out.switched.insert(text(top_up, "/reason").to_owned(), ("topped_up".to_owned(), self.epoch));
    }

    /// What is stopped neither begins nor is parked, except for what takes another call back.
    fn flows(&self, id: &str, version: &Version, found: &mut Findings) {
        let record = &version.record;
        let names = [
            format!("agent:{}", text(record, "/principal/agent")),
            format!("workflow:{}", text(record, "/context/workflow")),
            format!("tool:{}", text(record, "/tool")),
            "all".to_owned(),
        ];
        let begins = matches!(version.step.as_str(), "begun" | "begun_again" | "parked");
        let stopped = begins && record.get("undoes").is_none() && names.iter().any(|n| self.stopped.contains(n));
        found.check(!stopped, "pause", || {
            format!("{id}: `{}` in record {}, and it is stopped", version.step, version.seq)
        });
    }

    fn grant(&mut self, grant: &Value) {
        self.grants.insert(text(grant, "/id").to_owned(), grant.clone());
    }

    /// What began without people, though policy wants them, passed by a grant that was live then, by somebody else than who
    /// asked. That it was not used too often is a matter of ledgers.
    fn by_grant(&self, id: &str, version: &Version, found: &mut Findings) {
        let record = &version.record;
        let grant = self.grants.get(text(record, "/grant"));
        let wants_people = matches!(text(record, "/tier"), "medium" | "high") && record.get("terms").is_none();
        if version.step != "begun" || !(wants_people || record.get("grant").is_some()) {
            return;
        }
        let live = grant.filter(|g| g.get("ended").is_none() && *text(g, "/expires") > *text(record, "/begun"));
        let charged = list(record, "/charges").iter().any(|c| text(c, "/ledger/owner") == text(record, "/grant"));
        let other = live.is_some_and(|g| text(g, "/by") != text(record, "/principal/operator"));
        let same = live.is_some_and(|g| text(g, "/operation") == text(record, "/operation"));
        found.check(charged && other && same, "I9", || format!("{id} began without people and without a live grant"));
    }

    fn snapshot(&mut self, seq: u64, event: &Value) {
        self.epoch = number(event, "/epoch");
        for line in list(event, "/ledgers") {
            let extra = line.pointer("/balance/extra").and_then(Value::as_i64).unwrap_or(0);
            self.extra.insert(line["ledger"].to_string(), extra);
        }
        list(event, "/grants").iter().for_each(|grant| self.grant(grant));
        list(event, "/pauses").iter().for_each(|p| self.switch(text(p, "/scope"), text(p, "/reason"), true));
        for record in list(event, "/calls") {
            self.out.partial = true;
            let id = text(record, "/id").to_owned();
            let (epoch, record) = (self.epoch, record.clone());
            let version = Version { seq, epoch, step: "snapshot".into(), record };
            self.post(None, Some(&version.record));
            self.out.calls.insert(id.clone(), Call { id, versions: vec![version] });
        }
        self.out.partial |= self.epoch > 0;
    }

    fn new_epoch(&mut self, seq: u64, epoch: u64, found: &mut Findings) {
        found.check(epoch > self.epoch, "I15", || format!("record {seq}: epoch {epoch} follows epoch {}", self.epoch));
        self.epoch = epoch;
        self.recovering = true;
        self.died.clear();
    }

    fn recovered(&mut self, seq: u64, event: &Value, tampered: bool, found: &mut Findings) {
        self.recovering = false;
        let own = number(event, "/recovery/epoch") == self.epoch;
        found.check(own, "I22", || format!("record {seq}: the recovery of another epoch"));
        let lost = number(event, "/recovery/records_lost");
        found.check(lost == 0, "I22", || format!("record {seq}: recovery says that {lost} records are gone"));
        let corrected = event.pointer("/recovery/ledgers_corrected") == Some(&Value::Bool(true));
        found.check(!corrected, "I10", || format!("record {seq}: recovery had to correct the ledgers"));
        let rebuilt = event.pointer("/recovery/index_rebuilt") == Some(&Value::Bool(true));
        // An index that no process lived long enough to fill has to be made.
        self.indexed |= !rebuilt && number(event, "/recovery/replayed") > 0;
        found.check(!rebuilt || tampered || !self.indexed, "I22", || {
            format!("record {seq}: the index had to be rebuilt")
        });
        let named: BTreeSet<String> =
            list(event, "/recovery/to_unknown").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        found.check(named == self.died, "I22", || format!("record {seq}: recovery names other calls than died"));
        let resent: BTreeSet<&str> = list(event, "/recovery/to_resend").iter().filter_map(Value::as_str).collect();
        for call in self.out.calls.values() {
            let again = resent.contains(call.id.as_str());
            found.check(!again || call.state() == "dispatching" && has_resend(&call.last().record), "I22", || {
                format!("{} is to be sent again, and may not", call.id)
            });
            let dead = call.state() == "dispatching" && number(&call.last().record, "/epoch") < self.epoch && !again;
            found.check(!dead, "I22", || format!("{} is dispatching in a dead epoch after recovery", call.id));
        }
    }

    fn call(&mut self, seq: u64, event: &Value, found: &mut Findings) {
        let step = text(event, "/step").to_owned();
        let id = event.pointer("/id").or_else(|| event.pointer("/record/id")).and_then(Value::as_str);
        let Some(id) = id.map(str::to_owned) else { return found.add("I13", format!("record {seq} names no call")) };
        let before = self.out.calls.get(&id).map(|c| c.last().clone());
        let Some(record) = after(event, before.as_ref()) else {
            return found.add("I13", format!("record {seq} changes {id}, which no record begins"));
        };
        match step.as_str() {
            "collected" => return self.collected(seq, &id, record, found),
            "expiring" => return self.expiring(seq, &id, record, found),
            _ => {}
        }
        let version = Version { seq, epoch: self.epoch, step, record };
        self.transition(&id, before.as_ref(), &version, found);
        self.flows(&id, &version, found);
        let charges = before.as_ref().map(|v| &v.record);
        self.post(charges, Some(&version.record));
        if version.step == "begun" {
            self.within(&id, &version, found);
            self.by_grant(&id, &version, found);
        }
        if version.step == "died" {
            self.died.insert(id.clone());
        }
        self.out.calls.entry(id.clone()).or_insert_with(|| Call { id, versions: Vec::new() }).versions.push(version);
    }

    /// Handing an outcome over is no transition: nothing but the time of it changes.
    fn collected(&mut self, seq: u64, id: &str, record: Value, found: &mut Findings) {
        let Some(call) = self.out.calls.get_mut(id) else { return };
        let same = is_final(call.state()) && text(&record, "/state") == call.state();
        found.check(same, "I13", || format!("record {seq}: an open call was collected"));
        self.out.collected.entry(id.to_owned()).or_insert_with(|| text(&record, "/collected").to_owned());
        if let Some(last) = call.versions.last_mut() {
            last.record = record;
        }
    }

    /// That its time is nearly over is no transition either, and is told of holds alone.
    fn expiring(&mut self, seq: u64, id: &str, record: Value, found: &mut Findings) {
        let Some(call) = self.out.calls.get_mut(id) else { return };
        let same = ["state", "version", "digest", "approvals", "expires"]
            .iter()
            .all(|n| call.last().record.get(n) == record.get(n));
        found.check(same && call.state() == "held", "I4", || format!("record {seq}: {id} expires as it should not"));
        let warned = call.last().record.pointer("/handling/warned");
        let again = warned.is_some() && warned == record.pointer("/renewals");
        found.check(!again, "I13", || format!("record {seq}: twice of {id} that its time is nearly over"));
        if let Some(last) = call.versions.last_mut() {
            last.record = record;
        }
    }

    fn transition(&self, id: &str, before: Option<&Version>, after: &Version, found: &mut Findings) {
        let seq = after.seq;
        let (old, new) = (before.map(|b| number(&b.record, "/version")), number(&after.record, "/version"));
        found.check(new == old.unwrap_or(0) + 1, "I13", || format!("{id} went from version {old:?} to {new}"));
        let from = before.map_or("", Version::state);
        let (to, step) = (after.state(), after.step.as_str());
        if is_final(from) {
            found.add("I4", format!("{id} was {from} and became {to} in record {seq}"));
        } else if !arrow(from, step, to) {
            found.add("I4", format!("{id} went from `{from}` to `{to}` by `{step}` in record {seq}"));
        }
        let attempt = |v: &Version| number(&v.record, "/attempt");
        let epoch = number(&after.record, "/epoch");
        match step {
            "begun" | "begun_again" => {
                let more = number(&after.record, "/resend/attempts");
                let first = step == "begun";
                found.check(first || attempt(after) <= more, "I1", || format!("{id} is no call to be sent again"));
                let was = before.map_or(0, attempt);
                found.check(attempt(after) == was + 1, "I15", || format!("{id} began attempt {}", attempt(after)));
                found.check(epoch == self.epoch, "I15", || format!("{id} began in epoch {epoch}, not its process's"));
            }
            "concluded" => {
                let same = before.is_some_and(|b| attempt(b) == attempt(after) && number(&b.record, "/epoch") == epoch);
                found.check(same && epoch == self.epoch, "I15", || format!("{id}: a stale attempt concluded it"));
            }
            "not_found" | "opined" | "reconciled" => quiet(id, before, after, found),
            _ => {}
        }
        found.check(!self.recovering || matches!(step, "died" | "halted" | "continued"), "I22", || {
            format!("{id} took step `{step}` in the middle of a recovery")
        });
        if let Some(before) = before.filter(|_| step != "begun") {
            let same = before.record.get("charges") == after.record.get("charges");
            found.check(same, "I10", || format!("{id}: its charges changed by `{step}`"));
            let fixed = ["id", "fingerprint", "principal", "operation", "request", "key", "created"];
            if step == "edited" {
                let asked_for = |v: &Version| v.record.pointer("/edited/request").cloned();
                let first = asked_for(before).or_else(|| before.record.get("request").cloned());
                found.check(asked_for(after) == first, "I13", || format!("{id}: what its agent asked for is lost"));
            }
            let may = |name: &&str| step == "edited" && *name == "request";
            for name in fixed.into_iter().filter(|n| before.record.get(n) != after.record.get(n) && !may(n)) {
                found.add("I13", format!("{id}: `{name}` changed by `{step}`"));
            }
        }
    }

    /// Moves the charges of a call to where its new state has them.
    fn post(&mut self, before: Option<&Value>, after: Option<&Value>) {
        for (record, sign) in [(before, -1), (after, 1)] {
            let Some(record) = record else { continue };
            let part = match text(record, "/state") {
                "dispatching" | "unknown" => 1,
                "succeeded" | "failed" => 0,
                _ => continue,
            };
            for charge in list(record, "/charges") {
                let line = self.ledgers.entry(charge["ledger"].to_string()).or_default();
                let amount = sign * charge["amount"].as_i64().unwrap_or(0);
                if part == 0 { line.0 += amount } else { line.1 += amount }
            }
        }
    }

    fn within(&self, id: &str, version: &Version, found: &mut Findings) {
        for charge in list(&version.record, "/charges") {
            let (used, reserved) = self.ledgers.get(&charge["ledger"].to_string()).copied().unwrap_or_default();
            let extra = self.extra.get(&charge["ledger"].to_string()).copied().unwrap_or(0);
            let limit = charge["limit"].as_i64().unwrap_or(0) + extra;
            found.check(used + reserved <= limit, "I6", || {
                format!("{id} began with {used} used and {reserved} set aside of {limit} in {}", charge["ledger"])
            });
        }
    }

    /// Nothing is under way any more: what is set aside belongs to calls whose outcome is not known.
    fn ended(&self, found: &mut Findings) {
        let mut open: BTreeMap<String, i64> = BTreeMap::new();
        for call in self.out.calls.values() {
            let state = call.state();
            let rests = is_final(state) || matches!(state, "held" | "approved" | "unknown");
            found.check(rests, "I24", || format!("{} is {state} after the end", call.id));
            for charge in list(&call.last().record, "/charges").iter().filter(|_| state == "unknown") {
                *open.entry(charge["ledger"].to_string()).or_default() += charge["amount"].as_i64().unwrap_or(0);
            }
        }
        for (ledger, (_, reserved)) in self.ledgers.iter().filter(|_| !self.out.partial) {
            let wanted = open.get(ledger).copied().unwrap_or(0);
            found.check(*reserved == wanted, "I10", || format!("{reserved} is set aside in {ledger}, not {wanted}"));
        }
    }
}

fn has_resend(record: &Value) -> bool {
    record.get("resend").is_some_and(Value::is_object)
}

/// Nobody says that a call was not executed while its request may be on the wire.
fn quiet(id: &str, before: Option<&Version>, after: &Version, found: &mut Findings) {
    let said = text(&after.record, if after.step == "opined" { "/opinion/outcome" } else { "/state" });
    let Some(until) = before.map(|b| text(&b.record, "/quiet_after")).filter(|t| !t.is_empty()) else { return };
    let early = said == "not_executed" && text(&after.record, "/updated") < until;
    found.check(!early, "I5", || format!("{id}: not executed by `{}` before {until}", after.step));
}

/// The record after an event: whole, or the members that changed.
fn after(event: &Value, before: Option<&Version>) -> Option<Value> {
    if let Some(record) = event.get("record") {
        return Some(record.clone());
    }
    let mut record = before?.record.clone();
    let members = record.as_object_mut()?;
    for (name, value) in event.get("changed")?.as_object()? {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    Some(record)
}

/// The diagram of `lifecycle.md`, section 2.
fn arrow(from: &str, step: &str, to: &str) -> bool {
    match step {
        "parked" => from.is_empty() && matches!(to, "held" | "approved"),
        "begun" => matches!(from, "" | "approved") && to == "dispatching",
        "voted" | "attached" | "claimed" | "unclaimed" | "evidence_asked" | "escalated" => {
            (from, to) == ("held", "held")
        }
        "commented" => matches!(from, "held" | "unknown") && from == to,
        "approved" => (from, to) == ("held", "approved"),
        "edited" => from == "held" && matches!(to, "held" | "stale"),
        "renewed" => matches!(from, "held" | "approved") && matches!(to, "held" | "stale"),
        "waiting" => (from, to) == ("approved", "approved"),
        "halted" | "continued" => matches!(from, "held" | "approved") && from == to,
        "rejected" => matches!((from, to), ("held", "rejected") | ("approved", "revoked")),
        "withdrawn" => matches!(from, "held" | "approved") && to == "withdrawn",
        "revoked" => matches!(from, "held" | "approved") && to == "revoked",
        "expired" => matches!(from, "held" | "approved") && to == "expired",
        "concluded" => match from {
            "dispatching" => matches!(to, "succeeded" | "failed" | "not_executed" | "unknown"),
            "unknown" => matches!(to, "succeeded" | "failed"),
            _ => false,
        },
        "begun_again" => (from, to) == ("dispatching", "dispatching"),
        "found" => (from, to) == ("unknown", "succeeded"),
        "not_found" => (from, to) == ("unknown", "not_executed"),
        "died" => (from, to) == ("dispatching", "unknown"),
        "opined" => (from, to) == ("unknown", "unknown"),
        "reconciled" => from == "unknown" && matches!(to, "succeeded" | "not_executed"),
        _ => false,
    }
}

/// Whether a denial that was told at `from` need not be repeated at `to` any more: it is, for two minutes.
fn is_long(from: &str, to: &str) -> bool {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    matches!((time(from), time(to)), (Some(from), Some(to)) if to.since(from) > Duration::from_secs(110))
}

/// I11: one key, one call, while the first one stands.
pub fn keys(folded: &Folded, forgetful: &[u64], found: &mut Findings) {
    let mut by_key: BTreeMap<String, Vec<&Call>> = BTreeMap::new();
    for call in folded.calls.values() {
        let r = &call.last().record;
        let Some(key) = r.get("key").and_then(Value::as_str) else { continue };
        let who = [&r["principal"]["org"], &r["principal"]["agent"], &r["principal"]["acting_for"], &r["operation"]];
        by_key.entry(format!("{who:?} {key}")).or_default().push(call);
    }
    for (key, mut calls) in by_key {
        calls.sort_by_key(|c| c.versions[0].seq);
        for pair in calls.windows(2) {
            // Freed only by what provably was not sent, and by a denial that was told long ago.
            let (first, next) = (pair[0], &pair[1].versions[0]);
            let unsent = first.versions.iter().any(|v| v.state() == "not_executed" && v.seq < next.seq);
            let told = folded.collected.get(&first.id).map_or("", String::as_str);
            let time = |r: &Value, at: &str| text(r, at).parse::<Timestamp>().ok();
            let last = first.last();
            let age =
                time(&next.record, "/created").zip(time(&last.record, "/updated")).map(|(to, from)| to.since(from));
            let forgotten = is_final(first.state())
                && age.is_some_and(|age| age >= KEEP)
                && forgetful.iter().any(|e| (last.epoch..=next.epoch).contains(e));
            let free =
                forgotten || unsent || (is_never(first.state()) && is_long(told, text(&next.record, "/created")));
            found.check(free, "I11", || format!("{} and {} have one key: {key}", pair[0].id, pair[1].id));
        }
    }
}
