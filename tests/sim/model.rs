//! What the store must answer, written from the life cycle of a call and sharing nothing with the store: its own states,
//! a table of arrows, calls in one list that every question scans, ledgers added up anew each time.

use std::collections::BTreeSet;

/// Milliseconds.
pub type Ms = i64;
pub const MINUTE: Ms = 60_000;
pub const HOUR: Ms = 60 * MINUTE;
pub const DAY: Ms = 24 * HOUR;

/// What the store was told to keep outcomes collectable for.
const AFTER_COLLECTED: Ms = 2 * MINUTE;
const HOLD_KEEP: Ms = DAY;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum St {
    Held,
    Approved,
    Dispatching,
    Succeeded,
    Failed,
    NotExecuted,
    Unknown,
    Rejected,
    Expired,
    Withdrawn,
    Revoked,
    Stale,
}

use St::{Approved, Dispatching, Expired, Failed, Held, NotExecuted, Rejected, Revoked};
use St::{Stale, Succeeded, Unknown, Withdrawn};

impl St {
    pub fn over(self) -> bool {
        ![Held, Approved, Dispatching, Unknown].contains(&self)
    }

    pub fn name(self) -> &'static str {
        match self {
            Held => "held",
            Approved => "approved",
            Dispatching => "dispatching",
            Succeeded => "succeeded",
            Failed => "failed",
            NotExecuted => "not_executed",
            Unknown => "unknown",
            Rejected => "rejected",
            Expired => "expired",
            Withdrawn => "withdrawn",
            Revoked => "revoked",
            Stale => "stale",
        }
    }
}

/// Every arrow that there is. Quiescence, attempts and quorum are asked where the step is made.
const ARROWS: &[(St, &str, St)] = &[
    (Held, "vote", Held),
    (Held, "vote", Approved),
    (Held, "attach", Held),
    (Held, "handle", Held),
    (Unknown, "handle", Unknown),
    (Held, "edit", Held),
    (Held, "edit", Stale),
    (Held, "renew", Held),
    (Held, "renew", Stale),
    (Held, "reject", Rejected),
    (Held, "withdraw", Withdrawn),
    (Held, "revoke", Revoked),
    (Held, "halt", Held),
    (Held, "continue", Held),
    (Approved, "halt", Approved),
    (Approved, "continue", Approved),
    (Held, "expire", Expired),
    (Approved, "renew", Held),
    (Approved, "renew", Stale),
    (Approved, "reject", Revoked),
    (Approved, "revoke", Revoked),
    (Approved, "withdraw", Withdrawn),
    (Approved, "expire", Expired),
    (Approved, "wait", Approved),
    (Approved, "begin", Dispatching),
    (Dispatching, "again", Dispatching),
    (Dispatching, "conclude", Succeeded),
    (Dispatching, "conclude", Failed),
    (Dispatching, "conclude", NotExecuted),
    (Dispatching, "conclude", Unknown),
    (Dispatching, "died", Unknown),
    (Unknown, "conclude", Succeeded),
    (Unknown, "conclude", Failed),
    (Unknown, "opine", Unknown),
    (Unknown, "reconcile", Succeeded),
    (Unknown, "reconcile", NotExecuted),
    (Unknown, "read", Succeeded),
    (Unknown, "read", NotExecuted),
];

/// A vote that counted: who, and for which groups (a bit each).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    pub person: u8,
    pub groups: u8,
    pub digest: u32,
    pub at: Ms,
}

/// One amount: index of the ledger, amount, limit.
pub type Cost = (usize, i64, i64);

/// What approvers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub high: bool,
    /// Groups as bits, and whether each of them is needed or any.
    pub groups: Vec<(u8, bool)>,
    pub people: usize,
    pub evidence: bool,
    pub expires: Ms,
    pub window: Ms,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub id: u128,
    pub who: usize,
    pub operation: u8,
    pub key: Option<u8>,
    pub derived: bool,
    pub keep: Ms,
    pub fingerprint: u8,
    pub digest: u32,
    pub demand: Option<Demand>,
    pub resend: bool,
    pub quiet_for: Ms,
    pub state: St,
    pub version: u64,
    pub created: Ms,
    pub updated: Ms,
    pub expires: Option<Ms>,
    pub window: Option<Ms>,
    pub renewals: u32,
    pub attempt: u32,
    pub epoch: u64,
    pub begun: Option<Ms>,
    pub quiet: Option<Ms>,
    pub votes: Vec<Ballot>,
    /// Who changed it.
    pub editors: Vec<u8>,
    /// How long it waits after its approval; nothing for most.
    pub delay: Ms,
    pub not_before: Option<Ms>,
    /// Policy allows it by itself: it only waits for its time.
    pub free: bool,
    /// Indexes of artifacts.
    pub evidence: Vec<usize>,
    pub costs: Vec<Cost>,
    pub opinion: Option<(u8, St)>,
    pub collected: Option<Ms>,
    pub wait: Option<&'static str>,
    /// Who has it in hand, and until when.
    pub claim: Option<(u8, Ms)>,
    /// How much was said of it.
    pub words: usize,
    /// Since when its clocks stand still.
    pub halted: Option<Ms>,
}

/// What the kill switch stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    All,
    /// An agent: the first and the third caller are one.
    Agent(usize),
    Tool,
    /// A workflow in which nothing happens.
    Elsewhere,
}

impl Stop {
    fn stops(self, who: usize) -> bool {
        match self {
            Self::All | Self::Tool => true,
            Self::Agent(agent) => agent == who % 2,
            Self::Elsewhere => false,
        }
    }
}

/// What a person does about a hold beside deciding.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Claim(Ms, bool),
    Release,
    Say,
    Ask,
}

/// What a call looks like from outside; the same is read from the store's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: u128,
    pub state: &'static str,
    pub version: u64,
    pub created: Ms,
    pub updated: Ms,
    pub expires: Option<Ms>,
    pub window: Option<Ms>,
    pub renewals: u32,
    pub attempt: u32,
    pub epoch: u64,
    pub quiet: Option<Ms>,
    pub votes: usize,
    pub evidence: usize,
    pub opinion: bool,
    pub collected: Option<Ms>,
    pub claimed: Option<Ms>,
    pub words: usize,
    pub halted: Option<Ms>,
}

/// The answer to a step: the call after it, nothing, or the name of a refusal.
pub type Answer = Result<Option<Seen>, String>;

fn no(why: &str) -> Answer {
    Err(why.to_owned())
}

/// A vote or an opinion as it is cast.
#[derive(Debug, Clone)]
pub struct Cast {
    pub person: u8,
    pub version: Option<u64>,
    pub digest: u32,
    pub groups: u8,
    pub as_group: Option<u8>,
    pub reason: bool,
}

/// Persons of the play. The last three are nobody of their own: Anna under another name, Eve's other account, the key.
pub const PEOPLE: u8 = 8;
pub const OLGA: u8 = 3;
pub const ANNA: u8 = 4;
pub const ANNA_BY_MAIL: u8 = 5;
pub const EVE_ELSEWHERE: u8 = 6;
pub const KEY: u8 = 7;

fn human(person: u8) -> u8 {
    match person {
        EVE_ELSEWHERE => 0,
        ANNA_BY_MAIL => ANNA,
        person => person,
    }
}

/// The caller at this index acts for Anna, or is run by Olga.
pub fn for_anna(who: usize) -> bool {
    who == 0
}
pub fn by_olga(who: usize) -> bool {
    who != 2
}

fn barred(who: usize, person: u8) -> bool {
    match person {
        OLGA => by_olga(who),
        ANNA | ANNA_BY_MAIL => for_anna(who),
        KEY => true,
        _ => false,
    }
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub calls: Vec<Call>,
    pub high: Ms,
    /// Store time of the newest frame: what a restart begins from.
    pub framed: Ms,
    pub epoch: u64,
    /// Artifacts: whose, whether it is the ticket that is asked for, and when it was put.
    pub artifacts: Vec<(usize, bool, Ms)>,
    /// What forgotten calls have used.
    pub spent: Vec<Cost>,
    /// Rejections that stand for other calls: whose, of which operation, until when.
    pub denials: Vec<(usize, u8, Ms)>,
    /// What is stopped.
    pub stops: Vec<Stop>,
    /// Ledgers that something was ever charged to.
    pub charged: BTreeSet<usize>,
    /// More room that people gave: to which ledger, how much, under which key.
    pub extras: Vec<(usize, i64, Option<u8>)>,
}

impl Call {
    pub fn at(&self, now: Ms) -> St {
        let end = match self.state {
            Held => self.expires,
            Approved => self.window,
            _ => None,
        };
        let clock = self.clock(now);
        if end.is_some_and(|end| end <= clock) { Expired } else { self.state }
    }

    /// What its own clocks show.
    fn clock(&self, now: Ms) -> Ms {
        self.halted.map_or(now, |at| at.min(now))
    }

    fn quiet(&self, now: Ms) -> bool {
        self.quiet.is_some_and(|q| q <= now)
    }

    pub fn seen(&self, now: Ms) -> Seen {
        Seen {
            id: self.id,
            state: self.at(now).name(),
            version: self.version,
            created: self.created,
            updated: self.updated,
            expires: self.expires,
            window: self.window,
            renewals: self.renewals,
            attempt: self.attempt,
            epoch: self.epoch,
            quiet: self.quiet,
            votes: self.votes.len(),
            evidence: self.evidence.len(),
            opinion: self.opinion.is_some(),
            collected: self.collected,
            claimed: self.claim.map(|c| c.1),
            words: self.words,
            halted: self.halted,
        }
    }

    fn approve(&mut self, now: Ms) {
        let now = self.clock(now);
        self.not_before = (self.delay > 0).then_some(now + self.delay);
        self.window = Some(now + self.delay + self.demand.as_ref().unwrap().window);
    }

    fn given_key(&self) -> bool {
        self.key.is_some() && !self.derived
    }

    /// When it ended. Silence ended it at its deadline, whenever that was written down.
    fn ended(&self) -> Ms {
        match self.state {
            Held => self.expires.unwrap(),
            Approved => self.window.unwrap(),
            Expired => self.window.or(self.expires).unwrap(),
            _ => self.updated,
        }
    }

    /// A hold is collected, not forgotten.
    fn attaches(&self, now: Ms) -> bool {
        let state = self.at(now);
        if self.demand.is_none() || state == NotExecuted {
            return false;
        }
        if !state.over() {
            return true;
        }
        let cap = if self.given_key() { self.keep } else { self.keep.max(HOLD_KEEP) };
        now < self.ended() + cap && self.collected.is_none_or(|c| now < c + AFTER_COLLECTED)
    }

    /// Its key still stands for it.
    fn stands(&self, now: Ms) -> bool {
        match self.at(now) {
            NotExecuted => false,
            Succeeded | Failed => {
                let from = if self.derived { self.begun.unwrap() } else { self.updated };
                now < from + self.keep || self.attaches(now)
            }
            state => !state.over() || self.attaches(now),
        }
    }

    fn places(&self) -> Vec<u8> {
        let mut places = Vec::new();
        for (groups, all) in &self.demand.as_ref().unwrap().groups {
            let each = (0..8).map(|b| 1 << b).filter(|bit| groups & bit != 0);
            let demanded: Vec<u8> = if *all { each.collect() } else { vec![*groups] };
            for place in demanded {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    /// The groups that a vote fills: all it can for medium, one for high; any place once all are filled.
    fn fills(&self, cast: &Cast) -> Option<u8> {
        let places = self.places();
        let filled = self.votes.iter().fold(0, |all, v| all | v.groups);
        let open: Vec<u8> = places.iter().copied().filter(|p| p & filled == 0).collect();
        let wanted = if open.is_empty() { &places } else { &open };
        if wanted.is_empty() {
            return Some(0);
        }
        let has = cast.groups & cast.as_group.unwrap_or(u8::MAX);
        let picks = wanted.iter().map(|place| place & has).filter(|hit| *hit != 0).map(|hit| hit & hit.wrapping_neg());
        let groups = if self.demand.as_ref().unwrap().high { picks.take(1).sum() } else { picks.fold(0, |a, p| a | p) };
        if groups == 0 { None } else { Some(groups) }
    }

    /// I3, said without the counting above: enough distinct people, none of them barred, every place filled, by one
    /// vote for one place each where the tier is high, all on the digest that stands, all before the end.
    pub fn quorum_holds(&self) -> bool {
        let demand = self.demand.as_ref().unwrap();
        let people: BTreeSet<u8> = self.votes.iter().map(|v| human(v.person)).collect();
        people.len() == self.votes.len()
            && people.len() >= demand.people.max(if demand.high { 2 } else { 1 })
            && people.iter().all(|p| !barred(self.who, *p))
            && self.votes.iter().all(|v| v.digest == self.digest && self.expires.is_some_and(|e| v.at < e))
            && self.places().iter().all(|place| self.votes.iter().any(|v| v.groups & place != 0))
            && (!demand.high || self.votes.iter().all(|v| v.groups.count_ones() <= 1))
    }
}

/// What a look-up finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    New,
    Shown(&'static str, Box<Seen>),
    InFlight(u128),
    Reused(u128),
}

/// A call that comes in.
#[derive(Debug, Clone)]
pub struct Asked {
    pub who: usize,
    pub operation: u8,
    pub key: Option<u8>,
    pub derived: bool,
    pub fingerprint: u8,
}

impl Model {
    pub fn tick(&mut self, clock: Ms) -> Ms {
        self.high = self.high.max(clock);
        self.high
    }

    pub fn call(&self, id: u128) -> &Call {
        self.calls.iter().find(|c| c.id == id).unwrap()
    }

    fn step(&mut self, id: u128, verb: &str, to: St) -> &mut Call {
        let now = self.high;
        self.framed = now;
        let call = self.calls.iter_mut().find(|c| c.id == id).unwrap();
        assert!(ARROWS.contains(&(call.state, verb, to)), "I4: {} {verb} {}", call.state.name(), to.name());
        call.state = to;
        if !matches!(to, Held | Approved) {
            call.halted = None;
        }
        call.version += 1;
        call.updated = now;
        call
    }

    /// Writes down what time has decided.
    pub fn settle(&mut self, id: u128) {
        if self.call(id).at(self.high) != self.call(id).state {
            self.step(id, "expire", Expired);
        }
    }

    fn shown(&self, id: u128) -> Answer {
        Ok(Some(self.call(id).seen(self.high)))
    }

    /// Whether the asker sees the call as it is.
    fn current(&self, id: u128, version: Option<u64>, digest: Option<u32>, open: &[St]) -> Result<(), String> {
        let call = self.call(id);
        let state = call.at(self.high);
        let flaw = if state == Expired {
            "expired"
        } else if !open.contains(&state) {
            "decided"
        } else if version.is_some_and(|v| v != call.version) {
            "version"
        } else if digest.is_some_and(|d| d != call.digest) {
            "digest"
        } else {
            return Ok(());
        };
        Err(flaw.to_owned())
    }

    pub fn look_up(&mut self, asked: &Asked) -> Found {
        let now = self.high;
        let found = self.find(asked);
        if let Some(id) = found
            && self.call(id).at(now).over()
            && !matches!(self.call(id).state, Succeeded | Failed)
            && self.call(id).fingerprint == asked.fingerprint
        {
            self.settle(id);
        }
        let Some(id) = found else { return Found::New };
        let call = self.call(id);
        if call.fingerprint != asked.fingerprint {
            return Found::Reused(id);
        }
        match call.at(now) {
            Held | Approved => Found::Shown("held", Box::new(call.seen(now))),
            Dispatching => Found::InFlight(id),
            Succeeded | Failed => Found::Shown("concluded", Box::new(call.seen(now))),
            Unknown => Found::Shown("unknown", Box::new(call.seen(now))),
            _ => Found::Shown("over", Box::new(call.seen(now))),
        }
    }

    /// The call that this one is, or whose key it carries.
    fn find(&self, asked: &Asked) -> Option<u128> {
        let now = self.high;
        let scope = |c: &&Call| c.who == asked.who && c.operation == asked.operation;
        if let Some(key) = asked.key {
            let standing: Vec<_> =
                self.calls.iter().filter(scope).filter(|c| c.key == Some(key) && c.stands(now)).collect();
            assert!(standing.len() <= 1, "I11: one key stands for two calls");
            if let Some(call) = standing.first() {
                return Some(call.id);
            }
            if !asked.derived {
                return None;
            }
        }
        let same = |c: &&Call| c.fingerprint == asked.fingerprint && c.attaches(now);
        self.calls.iter().filter(scope).filter(same).map(|c| c.id).max()
    }

    fn asked(call: &Call) -> Asked {
        let Call { who, operation, key, derived, fingerprint, .. } = *call;
        Asked { who, operation, key, derived, fingerprint }
    }

    pub fn park(&mut self, call: &Call, per_agent: usize, total: usize) -> Answer {
        if self.find(&Self::asked(call)).is_some() {
            return no("key_taken");
        }
        if self.stopped(call.who) {
            return no("paused");
        }
        let now = self.high;
        if !call.free && self.denials.iter().any(|d| (d.0, d.1) == (call.who, call.operation) && now < d.2) {
            return no("denied");
        }
        let waiting: Vec<_> = self.calls.iter().filter(|c| matches!(c.at(now), Held | Approved)).collect();
        if waiting.len() >= total {
            return no("too_many");
        }
        // The first and the third caller are one agent for two people.
        if waiting.iter().filter(|c| c.who % 2 == call.who % 2).count() >= per_agent {
            return no("too_many_agent");
        }
        let mut parked = Call { created: now, updated: now, ..call.clone() };
        if call.free {
            parked.approve(now);
        } else {
            parked.expires = Some(now + call.demand.as_ref().unwrap().expires);
        }
        self.framed = now;
        self.calls.push(parked);
        self.shown(call.id)
    }

    /// Who is used, who set aside: from the calls alone.
    pub fn balance(&self, ledger: usize) -> (i64, i64) {
        let sum = |states: [St; 2]| -> i64 {
            let of = self.calls.iter().filter(|c| states.contains(&c.state)).flat_map(|c| &c.costs);
            of.filter(|c| c.0 == ledger).map(|c| c.1).sum()
        };
        let spent: i64 = self.spent.iter().filter(|c| c.0 == ledger).map(|c| c.1).sum();
        (spent + sum([Succeeded, Failed]), sum([Dispatching, Unknown]))
    }

    pub fn extra(&self, ledger: usize) -> i64 {
        self.extras.iter().filter(|e| e.0 == ledger).map(|e| e.1).sum()
    }

    /// A key adds once, whoever says it again.
    pub fn top_up(&mut self, ledger: usize, amount: i64, key: Option<u8>) -> Result<i64, &'static str> {
        let before = self.extras.iter().find(|e| key.is_some() && (e.0, e.2) == (ledger, key));
        match before {
            _ if !self.charged.contains(&ledger) => Err("not_found"),
            Some(before) if before.1 != amount => Err("reused"),
            Some(_) => Ok(self.extra(ledger)),
            None if amount < 1 => Err("amount"),
            None => {
                self.framed = self.high;
                self.extras.push((ledger, amount, key));
                Ok(self.extra(ledger))
            }
        }
    }

    fn fits(&self, costs: &[Cost]) -> bool {
        costs.iter().enumerate().all(|(i, (ledger, _, limit))| {
            let asked: i64 = costs[..=i].iter().filter(|c| c.0 == *ledger).map(|c| c.1).sum();
            let (used, reserved) = self.balance(*ledger);
            used + reserved + asked <= *limit + self.extra(*ledger)
        })
    }

    pub fn begin(&mut self, call: &Call, costs: Vec<Cost>) -> Answer {
        if self.find(&Self::asked(call)).is_some() {
            return no("key_taken");
        }
        if self.stopped(call.who) {
            return no("paused");
        }
        if !self.fits(&costs) {
            return no("budget");
        }
        let now = self.high;
        self.framed = now;
        self.charged.extend(costs.iter().map(|c| c.0));
        let mut begun = Call { created: now, updated: now, costs, ..call.clone() };
        begun.state = Dispatching;
        self.sent(&mut begun);
        self.calls.push(begun);
        self.shown(call.id)
    }

    fn sent(&self, call: &mut Call) {
        call.attempt += 1;
        call.epoch = self.epoch;
        call.begun = Some(self.high);
        call.quiet = Some(self.high + call.quiet_for);
        call.wait = None;
    }

    pub fn release(&mut self, id: u128, version: u64, costs: Vec<Cost>) -> Answer {
        let call = self.call(id);
        let state = call.at(self.high);
        if state == Expired && call.window.is_some() {
            self.settle(id);
            return no("window");
        }
        let early = call.halted.is_none() && call.not_before.is_some_and(|at| self.high < at);
        if state != Approved || call.version != version || early {
            return no("not_approved");
        }
        if self.stopped(call.who) {
            return no("paused");
        }
        if !self.fits(&costs) {
            return no("budget");
        }
        let mut call = self.step(id, "begin", Dispatching).clone();
        assert!((call.free || call.quorum_holds()) && call.window.is_some_and(|w| self.high < w), "I3: {call:?}");
        let charged: Vec<usize> = costs.iter().map(|c| c.0).collect();
        call.costs = costs;
        self.charged.extend(charged);
        self.sent(&mut call);
        self.put(call);
        self.shown(id)
    }

    fn put(&mut self, call: Call) {
        let place = self.calls.iter_mut().find(|c| c.id == call.id).unwrap();
        *place = call;
    }

    pub fn again(&mut self, id: u128, attempt: u32, epoch: u64) -> Answer {
        let call = self.call(id);
        let may = call.state == Dispatching && (call.attempt, call.epoch) == (attempt, epoch);
        if !may || !call.resend || call.attempt >= 3 || call.quiet(self.high) || self.stopped(call.who) {
            return Ok(None);
        }
        let mut call = self.step(id, "again", Dispatching).clone();
        self.sent(&mut call);
        self.put(call);
        self.shown(id)
    }

    pub fn conclude(&mut self, id: u128, attempt: u32, epoch: u64, to: St) -> Answer {
        let call = self.call(id);
        if call.state == Unknown && to == Unknown && call.attempt == attempt {
            return self.shown(id);
        }
        let own = (call.attempt, call.epoch) == (attempt, epoch);
        let may = match call.state {
            Dispatching => matches!(to, Succeeded | Failed | Unknown) || (to == NotExecuted && attempt == 1),
            Unknown => matches!(to, Succeeded | Failed),
            _ => false,
        };
        if !own || !may {
            return no("stale");
        }
        self.step(id, "conclude", to);
        self.shown(id)
    }

    pub fn give_up(&mut self, id: u128) {
        if self.call(id).state == Dispatching && self.call(id).epoch != self.epoch {
            self.step(id, "died", Unknown);
        }
    }

    pub fn read_says(&mut self, id: u128, found: bool, asked: Ms) -> Answer {
        let call = self.call(id);
        if call.state != Unknown || (!found && !call.quiet(asked.min(self.high))) {
            return Ok(None);
        }
        self.step(id, "read", if found { Succeeded } else { NotExecuted });
        self.shown(id)
    }

    pub fn vote(&mut self, id: u128, cast: &Cast) -> Answer {
        self.settle(id);
        self.current(id, cast.version, Some(cast.digest), &[Held])?;
        let call = self.call(id);
        let demand = call.demand.as_ref().unwrap();
        if barred(call.who, cast.person) {
            return no("self");
        }
        if call.votes.iter().any(|v| human(v.person) == human(cast.person)) {
            return no("counted");
        }
        self.unclaimed(id, cast.person)?;
        let editor = |p: &u8| human(*p) == human(cast.person);
        if demand.high && !call.votes.is_empty() && call.editors.iter().any(editor) {
            return no("own_edit");
        }
        if demand.evidence && !call.evidence.iter().any(|a| self.artifacts[*a].1) {
            return no("evidence");
        }
        if demand.high && !cast.reason {
            return no("justification");
        }
        let Some(groups) = call.fills(cast) else { return no("group") };
        let ballot = Ballot { person: cast.person, groups, digest: cast.digest, at: call.clock(self.high) };
        let mut after = call.clone();
        after.votes.push(ballot.clone());
        let people = demand.people.max(if demand.high { 2 } else { 1 });
        let filled = after.votes.iter().fold(0, |all, v| all | v.groups);
        let last = after.votes.len() >= people && after.places().iter().all(|p| p & filled != 0);
        assert_eq!(last, after.quorum_holds(), "I3: two ways to count a quorum differ: {after:?}");
        let now = self.high;
        let call = self.step(id, "vote", if last { Approved } else { Held });
        call.votes.push(ballot);
        call.claim = None;
        if last {
            call.approve(now);
        }
        self.shown(id)
    }

    /// Nobody else has it in hand.
    fn unclaimed(&self, id: u128, person: u8) -> Result<(), String> {
        let claim = self.call(id).claim.filter(|c| self.high < c.1);
        if claim.is_some_and(|c| human(c.0) != human(person)) { Err("claimed".into()) } else { Ok(()) }
    }

    pub fn handle(&mut self, id: u128, cast: &Cast, deed: Deed) -> Answer {
        self.settle(id);
        let open: &[St] = if matches!(deed, Deed::Say) { &[Held, Unknown] } else { &[Held] };
        self.current(id, cast.version, None, open)?;
        let (now, state, call) = (self.high, self.call(id).state, self.call(id).clone());
        match deed {
            Deed::Claim(..) if barred(call.who, cast.person) => return no("self"),
            Deed::Claim(lasts, take_over) => {
                if !take_over {
                    self.unclaimed(id, cast.person)?;
                }
                self.step(id, "handle", state).claim = Some((cast.person, now + lasts.min(60 * 60 * 1000)));
            }
            Deed::Release if call.claim.is_none_or(|c| now >= c.1) => {}
            Deed::Release => {
                self.unclaimed(id, cast.person)?;
                self.step(id, "handle", state).claim = None;
            }
            Deed::Say | Deed::Ask => self.step(id, "handle", state).words += 1,
        }
        self.shown(id)
    }

    pub fn reject(&mut self, id: u128, version: Option<u64>, digest: u32, deny: Option<Ms>) -> Answer {
        self.settle(id);
        self.current(id, version, Some(digest), &[Held, Approved])?;
        let to = if self.call(id).state == Held { Rejected } else { Revoked };
        self.step(id, "reject", to);
        let (call, now) = (self.call(id).clone(), self.high);
        self.denials.extend(deny.map(|lasts| (call.who, call.operation, now + lasts)));
        self.shown(id)
    }

    pub fn withdraw(&mut self, id: u128, by: Option<usize>) -> Answer {
        self.settle(id);
        if by.is_some_and(|who| who != self.call(id).who) {
            return no("not_found");
        }
        self.current(id, None, None, &[Held, Approved])?;
        self.step(id, "withdraw", Withdrawn);
        self.shown(id)
    }

    pub fn revoke(&mut self, id: u128) -> Answer {
        self.settle(id);
        self.current(id, None, None, &[Held, Approved])?;
        self.step(id, "revoke", Revoked);
        self.shown(id)
    }

    /// Another call for the same people or others; what makes it the same call for its agent stays.
    pub fn edit(&mut self, id: u128, cast: &Cast, demand: Demand, digest: u32) -> Answer {
        self.settle(id);
        self.current(id, cast.version, Some(cast.digest), &[Held])?;
        if barred(self.call(id).who, cast.person) {
            return no("self");
        }
        self.unclaimed(id, cast.person)?;
        let call = self.anew(id, "edit", demand, digest);
        call.editors.push(cast.person);
        call.wait = Some("edited");
        self.shown(id)
    }

    /// Votes are void, and there is another end.
    fn anew(&mut self, id: u128, verb: &str, demand: Demand, digest: u32) -> &mut Call {
        let now = self.high;
        let to = if self.call(id).renewals >= 3 { Stale } else { Held };
        let clock = self.call(id).clock(now);
        let call = self.step(id, verb, to);
        call.expires = Some(clock + demand.expires);
        (call.demand, call.digest, call.window) = (Some(demand), digest, None);
        (call.not_before, call.free) = (None, false);
        call.votes.clear();
        call.renewals += 1;
        call
    }

    pub fn renew(&mut self, id: u128, version: Option<u64>, demand: Demand, digest: u32) -> Answer {
        self.settle(id);
        self.current(id, version, None, &[Held, Approved])?;
        self.anew(id, "renew", demand, digest).wait = Some("renewed");
        self.shown(id)
    }

    pub fn wait(&mut self, id: u128, code: &'static str) -> Answer {
        self.settle(id);
        self.current(id, None, None, &[Approved])?;
        if self.call(id).wait != Some(code) {
            self.step(id, "wait", Approved).wait = Some(code);
        }
        self.shown(id)
    }

    pub fn attach(&mut self, id: u128, artifact: usize) -> Answer {
        self.settle(id);
        self.current(id, None, None, &[Held])?;
        let call = self.call(id);
        if call.evidence.contains(&artifact) {
            return self.shown(id);
        }
        if self.artifacts.get(artifact).is_none_or(|a| a.0 != call.who) {
            return no("not_found");
        }
        self.step(id, "attach", Held).evidence.push(artifact);
        self.shown(id)
    }

    pub fn opine(&mut self, id: u128, cast: &Cast, to: St) -> Answer {
        let call = self.call(id);
        if call.state != Unknown {
            return no("decided");
        }
        if cast.version.is_some_and(|v| v != call.version) {
            return no("version");
        }
        if barred(call.who, cast.person) {
            return no("self");
        }
        if !cast.reason {
            return no("justification");
        }
        if to == NotExecuted && !call.quiet(self.high) {
            return no("early");
        }
        match call.opinion {
            Some((first, said)) if said == to && human(first) == human(cast.person) => return no("counted"),
            Some((_, said)) if said == to => drop(self.step(id, "reconcile", to).clone()),
            _ => self.step(id, "opine", Unknown).opinion = Some((cast.person, to)),
        }
        self.shown(id)
    }

    fn stopped(&self, who: usize) -> bool {
        self.stops.iter().any(|s| s.stops(who))
    }

    /// The kill switch: whether something changed, and how many clocks that stopped or let go on.
    pub fn switch(&mut self, stop: Stop, on: bool) -> (bool, usize) {
        if self.stops.contains(&stop) == on {
            return (false, 0);
        }
        let now = self.high;
        self.framed = now;
        self.stops.retain(|s| *s != stop);
        self.stops.extend(on.then_some(stop));
        let waits = |c: &&Call| matches!(c.at(now), Held | Approved) && self.stopped(c.who) != c.halted.is_some();
        let ids: Vec<u128> = self.calls.iter().filter(waits).map(|c| c.id).collect();
        for id in &ids {
            let state = self.call(*id).state;
            let call = self.step(*id, if on { "halt" } else { "continue" }, state);
            if let Some(at) = std::mem::replace(&mut call.halted, on.then_some(now)) {
                let ends = [&mut call.expires, &mut call.window, &mut call.not_before];
                ends.into_iter().flatten().for_each(|end| *end += now - at);
            }
        }
        (true, ids.len())
    }

    pub fn expire_due(&mut self, at: Ms) -> Vec<u128> {
        let now = self.tick(at);
        let mut due: Vec<u128> = self.calls.iter().filter(|c| c.at(now) != c.state).map(|c| c.id).collect();
        due.sort_unstable();
        due.iter().for_each(|id| self.settle(*id));
        due
    }

    /// True when it writes something.
    pub fn collected(&mut self, id: u128) -> bool {
        let now = self.high;
        let call = self.calls.iter_mut().find(|c| c.id == id).unwrap();
        let first = call.state.over() && call.collected.is_none();
        if first {
            call.collected = Some(now);
            self.framed = now;
        }
        first
    }

    /// Retention: what ended before `end` is nobody's any more.
    pub fn forget(&mut self, end: Ms) {
        let (old, kept): (Vec<Call>, Vec<Call>) = self.calls.drain(..).partition(|c| c.state.over() && c.updated < end);
        self.calls = kept;
        let used = old.iter().filter(|c| matches!(c.state, Succeeded | Failed));
        self.spent.extend(used.flat_map(|c| &c.costs));
        self.artifacts.iter_mut().filter(|a| a.2 < end).for_each(|a| a.0 = usize::MAX);
    }

    /// The process ends and another one begins: what becomes unknown, what may be sent again, what waits to be sent.
    pub fn restart(&mut self, clock: Ms) -> [Vec<u128>; 3] {
        self.high = self.framed;
        let now = self.tick(clock);
        self.epoch += 1;
        self.framed = now;
        let ids = |keep: &dyn Fn(&Call) -> bool, calls: &[Call]| {
            let mut ids: Vec<u128> = calls.iter().filter(|c| keep(c)).map(|c| c.id).collect();
            ids.sort_unstable();
            ids
        };
        let again = |c: &Call| c.resend && c.attempt < 3 && !c.quiet(now);
        let dead = ids(&|c| c.state == Dispatching && !again(c), &self.calls);
        let resend = ids(&|c| c.state == Dispatching && again(c), &self.calls);
        let approved = ids(&|c| c.at(now) == Approved, &self.calls);
        dead.iter().for_each(|id| drop(self.step(*id, "died", Unknown).clone()));
        [dead, resend, approved]
    }
}
