//! The store and the model, asked the same things, in a world where requests are on the wire for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdpoint::call::{
    ArtifactId, AuthMethod, CallContext, CallId, Digest, Needs, PauseScope, Principal, Requirement, Target, Terms,
    Tier, Timestamp,
};
use holdpoint::clock::{Clock, ManualClock};
use holdpoint::store::{
    AnswerBody, AuditNote, Begin, BeginError, Begun, CallRecord, Charge, Conclusion, Edit, EditHold, Editing, Filter,
    Handle, HoldError, Keep, Known, LedgerKey, NewArtifact, Note, Options, Park, ParkError, Preview, Question,
    Reconcile, Recovery, Reject, Renew, Renewal, Resend, ResendBy, State, Store, StoredRequest, TopUp, TopUpError,
    Vote, Wish, WithdrawnBy,
};
use tokio::runtime::Runtime;

use crate::model::{
    Answer, Asked, Call, Cast, Cost, DAY, Deed, Demand, EVE_ELSEWHERE, Found, HOUR, MINUTE, Model, Ms, PEOPLE, Seen,
    St, Stop, by_olga, for_anna,
};

pub const START: Ms = 1_795_440_600_000;
const GROUPS: [&str; 4] = ["finance", "lead", "legal", "ops"];
const CALLERS: usize = 3;
const LEDGERS: usize = 3;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What became of one attempt upstream, unknown to the store.
#[derive(Debug, Clone, Copy)]
struct Fate {
    call: u128,
    attempt: u32,
    epoch: u64,
    /// When its effect takes place, if it ever does; always before quiescence.
    lands: Option<Ms>,
}

/// A store that is open, and what it was opened with. Several seeds may share it, one after the other.
pub struct Place {
    pub dir: PathBuf,
    guard: Option<tempfile::TempDir>,
    pub clock: Arc<ManualClock>,
    pub store: Option<Store>,
    pub options: Options,
    pub epoch: u64,
    /// Ids grow from seed to seed.
    pub next: u128,
    runtime: Runtime,
}

impl Place {
    pub fn new(options: Options) -> Self {
        let guard = scratch();
        let place = Self::at(guard.path(), options);
        Self { guard: Some(guard), ..place }
    }

    /// In a directory that is kept.
    pub fn at(dir: &Path, options: Options) -> Self {
        let (dir, guard) = (dir.to_owned(), None);
        let clock = Arc::new(ManualClock::at(time(START)));
        let (store, recovery) = Store::open(&dir, clock.clone(), options.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let next = (START as u128) << 80;
        Self { dir, guard, clock, store: Some(store), options, epoch: recovery.epoch, next, runtime }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// On a file system in memory where there is one: these runs are about order, not about disks.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn time(ms: Ms) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn span(ms: Ms) -> Duration {
    Duration::from_millis(ms.try_into().unwrap())
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // The index may take a file away meanwhile.
            drop(std::fs::copy(entry.path(), target));
        }
    }
}

/// How much a run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sum {
    pub steps: u64,
    pub agreed: u64,
    pub restarts: u64,
    pub begins: u64,
    pub approvals: u64,
}

pub struct World<'a> {
    place: &'a mut Place,
    dice: Dice,
    seed: u64,
    model: Model,
    fates: Vec<Fate>,
    artifacts: Vec<ArtifactId>,
    /// Something was written that nobody waited for.
    unsure: bool,
    restarts: bool,
    pub sum: Sum,
    /// The last steps, for people.
    pub trace: Vec<String>,
}

pub fn see(r: &CallRecord) -> Seen {
    let ms = |t: Option<Timestamp>| t.map(Timestamp::as_millis);
    Seen {
        id: r.id.bits(),
        state: r.state.as_str(),
        version: r.version,
        created: r.created.as_millis(),
        updated: r.updated.as_millis(),
        expires: ms(r.expires),
        window: ms(r.window_closes),
        renewals: r.renewals,
        attempt: r.attempt,
        epoch: r.epoch,
        quiet: ms(r.quiet_after),
        votes: r.approvals.len(),
        evidence: r.evidence.len(),
        opinion: r.opinion.is_some(),
        collected: ms(r.collected),
        claimed: ms(r.handling.as_ref().and_then(|h| h.claim.as_ref()).map(|c| c.until)),
        words: r.handling.as_ref().map_or(0, |h| h.comments.len() + h.requests.len()),
        halted: ms(r.halted),
    }
}

fn refusal(error: &HoldError) -> String {
    match error {
        HoldError::NotFound => "not_found",
        HoldError::VersionChanged(_) => "version",
        HoldError::DigestChanged(_) => "digest",
        HoldError::AlreadyDecided(_) => "decided",
        HoldError::Expired(_) => "expired",
        HoldError::SelfReview => "self",
        HoldError::OwnEdit => "own_edit",
        HoldError::AlreadyCounted => "counted",
        HoldError::ClaimedByOther(_) => "claimed",
        HoldError::Full => "full",
        HoldError::NotInGroup => "group",
        HoldError::JustificationRequired => "justification",
        HoldError::NotApproved => "not_approved",
        HoldError::AlreadyGranted(_) => "granted",
        HoldError::EvidenceMissing(_) => "evidence",
        HoldError::TooEarly(_) => "early",
        HoldError::Unavailable => "unavailable",
    }
    .to_owned()
}

fn held(result: Result<CallRecord, HoldError>) -> Answer {
    result.map(|r| Some(see(&r))).map_err(|e| refusal(&e))
}

fn state(st: St) -> State {
    State::ALL.into_iter().find(|s| s.as_str() == st.name()).unwrap()
}

fn note(code: &str) -> Note {
    Note { code: code.into(), text: "words".into(), by: None }
}

fn preview() -> Preview {
    Preview {
        certainty: holdpoint::call::Certainty::Exact,
        target: Some("/orders/1".into()),
        read_at: time(0),
        fence: Some("etag:\"1\"".into()),
        why: None,
        redact: vec![],
        states: None,
    }
}

fn digest(n: u32) -> Digest {
    Digest::of(format!("digest {n}").as_bytes())
}

fn names(groups: u8) -> Vec<String> {
    (0..4).filter(|b| groups & (1 << b) != 0).map(|b| GROUPS[b].to_owned()).collect()
}

/// Name, aliases and subject of a person.
fn person(n: u8) -> (String, Vec<String>, String) {
    let plain = |name: &str| (name.to_owned(), vec![format!("{name}@acme.example")], format!("idp|{name}"));
    match n {
        0..=2 => plain(["eve", "max", "kim"][usize::from(n)]),
        crate::model::OLGA => plain("OLGA"),
        crate::model::ANNA => plain("anna"),
        crate::model::ANNA_BY_MAIL => ("x".into(), vec!["ANNA@acme.EXAMPLE".into()], "idp|x".into()),
        EVE_ELSEWHERE => ("eve".into(), vec!["idp|eve".into()], "other|eve".into()),
        _ => ("y".into(), vec![], "key|bot".into()),
    }
}

fn terms(d: &Demand) -> Terms {
    let requirement = |(i, (groups, all)): (usize, &(u8, bool))| Requirement {
        policy: format!("p{i}"),
        groups: names(*groups),
        all: *all,
    };
    Terms {
        tier: if d.high { Tier::High } else { Tier::Medium },
        why: vec![],
        needs: Needs {
            people: d.people,
            requirements: d.groups.iter().enumerate().map(requirement).collect(),
            justification: d.high,
            evidence: if d.evidence { vec!["ticket".into()] } else { vec![] },
        },
        sla: span(MINUTE),
        expires: span(d.expires),
        window: span(d.window),
        policy_digest: Digest::of(b"policy"),
    }
}

impl<'a> World<'a> {
    pub fn new(place: &'a mut Place, seed: u64, restarts: bool) -> Self {
        let high = place.clock.now().as_millis();
        let model = Model { high, framed: high, epoch: place.epoch, ..Model::default() };
        let dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d);
        let (fates, artifacts, trace, sum) = (Vec::new(), Vec::new(), Vec::new(), Sum::default());
        Self { place, dice, seed, model, fates, artifacts, unsure: false, restarts, sum, trace }
    }

    pub fn place(&self) -> &Place {
        self.place
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn clock(&self) -> Ms {
        self.place.clock.now().as_millis()
    }

    fn principal(&self, who: usize) -> Principal {
        Principal {
            agent: format!("bot{}-{}", who % 2, self.seed),
            groups: vec![],
            org: "acme".into(),
            owner: None,
            operator: by_olga(who).then(|| "olga".into()),
            acting_for: [Some("anna"), None, Some("ben")][who].map(str::to_owned),
            acting_for_email: for_anna(who).then(|| "Anna@acme.example".into()),
            claims: Default::default(),
            method: AuthMethod::ApiKey,
            subject: "key|bot".into(),
        }
    }

    fn ledger(&self, n: usize) -> LedgerKey {
        let (scope, owner) = [("org", "acme"), ("user", "anna"), ("user", "ben")][n];
        let (owner, unit) = (format!("{owner}-{}", self.seed), "EUR".into());
        LedgerKey { scope: scope.into(), owner, unit, window: None, every: None }
    }

    fn charges(&self, costs: &[Cost]) -> Vec<Charge> {
        costs
            .iter()
            .map(|(n, amount, limit)| Charge { ledger: self.ledger(*n), amount: *amount, limit: *limit })
            .collect()
    }

    fn record(&self, c: &Call) -> CallRecord {
        let key = c.key.map(|k| format!("k{k}-{}", self.seed));
        CallRecord {
            id: CallId::from_bits(c.id),
            version: 1,
            state: state(c.state),
            operation: format!("crm.op{}", c.operation),
            tool: "crm".into(),
            effects: vec!["money".into()],
            principal: self.principal(c.who).into(),
            context: CallContext { workflow: "w".into(), run: "r1".into(), ..CallContext::default() }.into(),
            key,
            key_derived: c.derived,
            keep: span(c.keep),
            fingerprint: Digest::of(&[c.fingerprint]),
            digest: digest(c.digest),
            request: StoredRequest {
                target: Target { method: "POST".into(), path: "/refunds".into() },
                content_type: None,
                headers: vec![],
                rpc: None,
                body: None,
                arguments: None,
            },
            arguments: serde_json::json!({"amount": 5}).into(),
            schema_digest: Digest::of(b"schema"),
            config_digest: Digest::of(b"config"),
            policy_digest: Digest::of(b"policy"),
            tier: c.demand.as_ref().map_or(Tier::Low, |d| if d.high { Tier::High } else { Tier::Medium }),
            policies: vec![],
            facts: None,
            would: Vec::new(),
            preview: None,
            undoes: None,
            grant: None,
            delay: (c.delay > 0).then(|| span(c.delay)),
            not_before: None,
            edited: None,
            handling: None,
            unfetched: Vec::new(),
            deny_alike: None,
            terms: c.demand.as_ref().map(terms),
            release_by_proxy: false,
            title: "Refund".into(),
            approvals: vec![],
            evidence: vec![],
            created: time(0),
            updated: time(0),
            expires: None,
            window_closes: None,
            halted: None,
            renewals: 0,
            attempt: 0,
            epoch: 0,
            begun: None,
            quiet_for: span(c.quiet_for),
            quiet_after: None,
            resend: c.resend.then_some(Resend { by: ResendBy::Header, attempts: 3 }),
            charges: vec![],
            answer: None,
            note: None,
            opinion: None,
            collected: None,
            target: None,
            money: None,
            seq: 0,
            frames: Vec::new(),
        }
    }

    fn demand(&mut self) -> Demand {
        let d = &mut self.dice;
        let mut groups = Vec::new();
        for _ in 0..d.below(3) {
            groups.push((1 + d.below(15) as u8, d.one_in(2)));
        }
        let high = d.one_in(3);
        let (people, evidence) = (1 + usize::from(d.one_in(3)), d.one_in(8));
        let (expires, window) = (d.of(&[10 * MINUTE, HOUR, DAY]), d.of(&[MINUTE, 15 * MINUTE, 3 * HOUR]));
        Demand { high, groups, people, evidence, expires, window }
    }

    fn costs(&mut self) -> Vec<Cost> {
        if self.dice.one_in(4) {
            return vec![];
        }
        let amount = 1 + self.dice.below(40) as i64;
        let child = 1 + self.dice.below(LEDGERS - 1);
        vec![(child, amount, 80), (0, amount, 120)]
    }

    /// A call as an agent might make it: few callers, operations, keys and arguments, so that they meet often.
    fn fresh(&mut self, hold: bool) -> Call {
        let demand = hold.then(|| self.demand());
        let d = &mut self.dice;
        self.place.next += 1 << 64;
        let key = if d.one_in(3) { None } else { Some(d.below(3) as u8) };
        let derived = key.is_some() && d.one_in(2);
        let mut fingerprint = d.below(3) as u8;
        // A derived key is made of the fingerprint.
        if let Some(key) = key.filter(|_| derived) {
            fingerprint = key;
        }
        let key = if derived { key.map(|k| 100 + k) } else { key };
        let delay = if hold && d.one_in(4) { d.of(&[MINUTE, 20 * MINUTE]) } else { 0 };
        let free = delay > 0 && d.one_in(2);
        Call {
            id: self.place.next,
            who: d.below(CALLERS),
            operation: d.below(2) as u8,
            key,
            derived,
            keep: if derived { 2 * MINUTE } else { DAY },
            fingerprint,
            digest: d.below(1000) as u32,
            demand,
            resend: d.one_in(4),
            quiet_for: d.of(&[MINUTE, 10 * MINUTE]),
            state: if free {
                St::Approved
            } else if hold {
                St::Held
            } else {
                St::Dispatching
            },
            version: 1,
            created: 0,
            updated: 0,
            expires: None,
            window: None,
            renewals: 0,
            attempt: 0,
            epoch: 0,
            begun: None,
            quiet: None,
            votes: vec![],
            editors: vec![],
            delay,
            not_before: None,
            free,
            evidence: vec![],
            costs: vec![],
            opinion: None,
            collected: None,
            wait: None,
            claim: None,
            words: 0,
            halted: None,
        }
    }

    /// A call that is there, rather one in this state.
    fn any(&mut self, state: Option<St>) -> Option<Call> {
        let now = self.model.high.max(self.clock());
        let calls = &self.model.calls;
        let fitting: Vec<_> = calls.iter().filter(|c| state.is_none_or(|s| c.at(now) == s)).collect();
        let from = if fitting.is_empty() || self.dice.one_in(6) { calls.iter().collect() } else { fitting };
        if from.is_empty() { None } else { Some(from[self.dice.below(from.len())].clone()) }
    }

    fn a_hold(&mut self, state: St) -> Option<Call> {
        self.any(Some(state)).filter(|c| c.demand.is_some())
    }

    /// The store's answer is the model's.
    fn agree(&mut self, what: &str, store: &Answer, model: &Answer) {
        self.trace.push(format!("{what}: {store:?}"));
        assert_eq!(store, model, "{what}: the store says the left, the model the right");
        self.sum.agreed += u64::from(store.as_ref().is_ok_and(Option::is_some));
    }

    fn cast(&mut self, call: &Call) -> Cast {
        let d = &mut self.dice;
        let person = if d.one_in(3) { d.below(PEOPLE.into()) as u8 } else { d.below(3) as u8 };
        let groups = if d.one_in(3) { d.below(16) as u8 } else { 15 };
        let version = [None, None, Some(call.version), Some(call.version.saturating_sub(1))][d.below(4)];
        let digest = if d.one_in(10) { call.digest + 1000 } else { call.digest };
        let as_group = d.one_in(6).then(|| 1 << d.below(4));
        Cast { person, version, digest, groups, as_group, reason: !d.one_in(8) }
    }

    pub fn step(&mut self) {
        self.sum.steps += 1;
        match self.dice.below(if self.restarts { 39 } else { 38 }) {
            0..=1 => self.look_up(),
            2..=5 => self.park(),
            6..=11 => self.vote(),
            12 => self.reject(),
            13 => self.withdraw(),
            14 => self.renew(),
            15 => self.attach(),
            16..=17 => self.begin(),
            18..=19 => self.release(),
            20..=22 => self.conclude(),
            23 => self.again(),
            24 => self.read(),
            25 => self.opine(),
            26 => self.time_passes(),
            27 => self.expire(),
            28 => self.collected(),
            29 => self.get(),
            30 => self.all_agree(),
            31 => self.smaller(),
            32 => self.edit(),
            33..=34 => self.handle(),
            35..=36 => self.kill_switch(),
            37 => self.top_up(),
            _ => self.restart(),
        }
    }

    fn look_up(&mut self) {
        let like = self.any(None).filter(|_| !self.dice.one_in(4));
        let c = match like {
            Some(c) => c,
            None => self.fresh(false),
        };
        let mut asked =
            Asked { who: c.who, operation: c.operation, key: c.key, derived: c.derived, fingerprint: c.fingerprint };
        if self.dice.one_in(5) {
            (asked.key, asked.derived) = (None, false);
        }
        if self.dice.one_in(5) && !asked.derived {
            asked.fingerprint = (asked.fingerprint + 1) % 3;
        }
        let record = self.record(&Call { key: asked.key, fingerprint: asked.fingerprint, ..c });
        let question = Question {
            principal: &record.principal,
            operation: &record.operation,
            key: record.key.as_deref(),
            key_derived: asked.derived,
            fingerprint: record.fingerprint,
        };
        let store = match self.place.block(self.place.store().look_up(question)).unwrap() {
            Known::New => Found::New,
            Known::Concluded(r) => Found::Shown("concluded", Box::new(see(&r))),
            Known::Held(r) => Found::Shown("held", Box::new(see(&r))),
            Known::InFlight(id) => Found::InFlight(id.bits()),
            Known::Over(r) => Found::Shown("over", Box::new(see(&r))),
            Known::Unknown(r) => Found::Shown("unknown", Box::new(see(&r))),
            Known::KeyReused(id) => Found::Reused(id.bits()),
        };
        self.model.tick(self.clock());
        let model = self.model.look_up(&asked);
        self.trace.push(format!("look up {asked:?}: {store:?}"));
        assert_eq!(store, model, "I11: look up {asked:?}: the store says the left, the model the right");
    }

    fn park(&mut self) {
        let call = self.fresh(true);
        let (per_agent, total) = (6, 10);
        let park = Park {
            record: self.record(&call),
            body: Bytes::from_static(b"request"),
            arguments: Bytes::new(),
            states: Bytes::new(),
            evidence: vec![],
            max_per_agent: per_agent,
            max_total: total,
        };
        let store = self.place.block(self.place.store().park(park)).map(|r| Some(see(&r))).map_err(|e| {
            match e {
                ParkError::TooManyAgent => "too_many_agent",
                ParkError::TooManyTotal => "too_many",
                ParkError::KeyTaken(_) => "key_taken",
                ParkError::DeniedAlike(_) => "denied",
                ParkError::Paused(_) => "paused",
                ParkError::Unavailable => "unavailable",
            }
            .to_owned()
        });
        self.model.tick(self.clock());
        let model = self.model.park(&call, per_agent, total);
        self.agree("park", &store, &model);
    }

    fn vote(&mut self) {
        let Some(call) = self.a_hold(St::Held) else { return self.park() };
        let cast = self.cast(&call);
        self.vote_as(&call, &cast);
    }

    fn vote_as(&mut self, call: &Call, cast: &Cast) {
        let (person, aliases, subject) = person(cast.person);
        let vote = Vote {
            id: CallId::from_bits(call.id),
            version: cast.version,
            digest: digest(cast.digest),
            person,
            aliases,
            subject,
            groups: names(cast.groups),
            as_group: cast.as_group.map(|g| names(g).remove(0)),
            channel: "api".into(),
            justification: cast.reason.then(|| "looked at it".into()),
        };
        let store = held(self.place.block(self.place.store().vote(vote)));
        self.model.tick(self.clock());
        let model = self.model.vote(call.id, cast);
        self.sum.approvals += u64::from(matches!(&store, Ok(Some(s)) if s.state == "approved"));
        self.agree("vote", &store, &model);
    }

    fn reject(&mut self) {
        let wanted = self.dice.of(&[St::Held, St::Approved]);
        let Some(call) = self.a_hold(wanted) else { return };
        let cast = self.cast(&call);
        let id = CallId::from_bits(call.id);
        self.model.tick(self.clock());
        if self.dice.one_in(3) {
            let store = held(self.place.block(self.place.store().revoke(id, note("forbidden"))));
            let model = self.model.revoke(call.id);
            return self.agree("revoke", &store, &model);
        }
        let deny = self.dice.one_in(3).then(|| self.dice.of(&[MINUTE, 20 * MINUTE]));
        let reject = Reject {
            id,
            version: cast.version,
            digest: digest(cast.digest),
            person: "eve".into(),
            reason_code: "not_needed".into(),
            message: None,
            deny_alike: deny.map(span),
        };
        let store = held(self.place.block(self.place.store().reject(reject)));
        let model = self.model.reject(call.id, cast.version, cast.digest, deny);
        self.agree("reject", &store, &model);
    }

    fn handle(&mut self) {
        let wanted = self.dice.of(&[St::Held, St::Held, St::Held, St::Unknown]);
        let Some(call) = self.a_hold(wanted) else { return };
        let cast = self.cast(&call);
        let (name, aliases, subject) = person(cast.person);
        let (deed, wish) = match self.dice.below(6) {
            0..=2 => {
                let (lasts, take_over) = (self.dice.of(&[MINUTE, 10 * MINUTE, DAY]), self.dice.one_in(3));
                (Deed::Claim(lasts, take_over), Wish::Claim { lasts: span(lasts), take_over })
            }
            3 => (Deed::Release, Wish::Release),
            4 => (Deed::Say, Wish::Comment("seen".into())),
            _ => (Deed::Ask, Wish::AskEvidence { kinds: vec!["ticket".into()], message: None }),
        };
        let aliases = aliases.into_iter().chain([subject]).collect();
        let asked = Handle { id: CallId::from_bits(call.id), version: cast.version, person: name, aliases, wish };
        let store = held(self.place.block(self.place.store().handle(asked)));
        self.model.tick(self.clock());
        let model = self.model.handle(call.id, &cast, deed);
        self.agree("handle", &store, &model);
    }

    fn withdraw(&mut self) {
        let wanted = self.dice.of(&[St::Held, St::Approved]);
        let Some(call) = self.a_hold(wanted) else { return };
        let who = if self.dice.one_in(3) { None } else { Some(self.dice.below(CALLERS)) };
        let by = match who {
            Some(who) => WithdrawnBy::Agent(self.principal(who).key()),
            None => WithdrawnBy::Person("owen".into()),
        };
        let store = held(self.place.block(self.place.store().withdraw(CallId::from_bits(call.id), by, "no need")));
        self.model.tick(self.clock());
        let model = self.model.withdraw(call.id, who);
        self.agree("withdraw", &store, &model);
    }

    fn renew(&mut self) {
        let wanted = self.dice.of(&[St::Held, St::Approved]);
        let Some(call) = self.a_hold(wanted) else { return };
        let (demand, cast) = (self.demand(), self.cast(&call));
        let new = self.dice.below(1000) as u32;
        let renew = Renew {
            id: CallId::from_bits(call.id),
            version: cast.version,
            terms: terms(&demand),
            digest: digest(new),
            preview: self.dice.one_in(2).then(|| (Box::new(preview()), Bytes::from_static(b"{}"))),
            config_digest: Digest::of(b"config 2"),
            policy_digest: Digest::of(b"policy 2"),
            what_changed: note("renewed"),
        };
        let store = held(self.place.block(self.place.store().renew(renew)));
        self.model.tick(self.clock());
        let model = self.model.renew(call.id, cast.version, demand, new);
        self.agree("renew", &store, &model);
    }

    fn edit(&mut self) {
        let Some(call) = self.a_hold(St::Held) else { return };
        let (demand, cast) = (self.demand(), self.cast(&call));
        let new = self.dice.below(1000) as u32;
        let (name, aliases, subject) = person(cast.person);
        let record = self.record(&call);
        let renewal = Renewal {
            terms: terms(&demand),
            digest: digest(new),
            preview: self.dice.one_in(2).then(|| Box::new(preview())),
            config_digest: Digest::of(b"config 3"),
            policy_digest: Digest::of(b"policy 3"),
            note: note("edited"),
        };
        let edit = Edit {
            person: name.clone(),
            aliases: aliases.iter().chain([&subject]).cloned().collect(),
            at: time(0),
            note: "smaller".into(),
            changes: vec![],
        };
        let editing = Editing {
            request: record.request,
            arguments: serde_json::json!({"amount": 4}).into(),
            schema_digest: record.schema_digest,
            title: "Smaller refund".into(),
            target: None,
            money: None,
            edit,
            changes: vec![],
            renewal,
        };
        let names = aliases.into_iter().chain([name, subject]).collect();
        let ask = EditHold {
            id: CallId::from_bits(call.id),
            version: cast.version,
            digest: digest(cast.digest),
            names,
            editing,
            body: Bytes::from_static(b"request"),
            arguments: Bytes::new(),
            states: Bytes::from_static(b"{}"),
        };
        let store = held(self.place.block(self.place.store().edit(ask)));
        self.model.tick(self.clock());
        let model = self.model.edit(call.id, &cast, demand, new);
        self.agree("edit", &store, &model);
    }

    fn attach(&mut self) {
        let Some(call) = self.a_hold(St::Held) else { return };
        if self.artifacts.is_empty() || self.dice.one_in(2) {
            let (who, ticket) =
                (if self.dice.one_in(3) { self.dice.below(CALLERS) } else { call.who }, self.dice.one_in(2));
            self.place.next += 1 << 64;
            let id = ArtifactId::from_bits(self.place.next);
            let new = NewArtifact {
                id,
                kind: if ticket { "ticket" } else { "other" }.into(),
                title: "t".into(),
                by: "bot".into(),
                principal_key: self.principal(who).key(),
                content: Bytes::from_static(b"content"),
            };
            self.place.block(self.place.store().put_artifact(new)).unwrap();
            self.model.framed = self.model.tick(self.clock());
            self.unsure = false;
            self.artifacts.push(id);
            self.model.artifacts.push((who, ticket, self.model.high));
        }
        let artifact = self.dice.below(self.artifacts.len());
        let id = CallId::from_bits(call.id);
        let store = held(self.place.block(self.place.store().attach_evidence(id, self.artifacts[artifact])));
        self.model.tick(self.clock());
        let model = self.model.attach(call.id, artifact);
        self.agree("attach", &store, &model);
    }

    /// The request goes out: its effect, if it has one, takes place before quiescence.
    fn on_the_wire(&mut self, answer: &Answer) {
        let Ok(Some(seen)) = answer else { return };
        self.sum.begins += 1;
        let call = self.model.call(seen.id).clone();
        let before = self.fates.iter().filter(|f| f.call == call.id).count();
        assert!(before == 0 || (call.resend && before < 3), "I1: sent {} times before", before);
        let landing = 1 + self.dice.below(call.quiet_for as usize - 1) as Ms;
        let lands = (!self.dice.one_in(3)).then_some(self.model.high + landing);
        self.fates.push(Fate { call: call.id, attempt: call.attempt, epoch: call.epoch, lands });
    }

    fn begin(&mut self) {
        let (call, costs) = (self.fresh(false), self.costs());
        let begin = Begin {
            record: self.record(&call),
            body: Bytes::from_static(b"request"),
            arguments: Bytes::new(),
            states: Bytes::new(),
            charges: self.charges(&costs),
            release: false,
        };
        let store = self.begun(begin);
        self.model.tick(self.clock());
        let model = self.model.begin(&call, costs);
        self.agree("begin", &store, &model);
        self.on_the_wire(&store);
    }

    fn begun(&mut self, begin: Begin) -> Answer {
        match self.place.block(self.place.store().begin(begin)) {
            Ok((Begun { id, attempt, epoch }, record)) => {
                assert_eq!((id, attempt, epoch), (record.id, record.attempt, record.epoch));
                Ok(Some(see(&record)))
            }
            Err(e) => Err(match e {
                BeginError::KeyTaken => "key_taken",
                BeginError::Budget(_) => "budget",
                BeginError::GrantOver => "grant_over",
                BeginError::Paused(_) => "paused",
                BeginError::NotApproved => "not_approved",
                BeginError::WindowClosed => "window",
                BeginError::Unavailable => "unavailable",
            }
            .to_owned()),
        }
    }

    fn release(&mut self) {
        let Some(call) = self.a_hold(St::Approved) else { return self.vote() };
        if self.dice.one_in(5) {
            let code = self.dice.of(&["budget_exhausted", "paused"]);
            let store = held(self.place.block(self.place.store().wait_reason(CallId::from_bits(call.id), note(code))));
            self.model.tick(self.clock());
            let model = self.model.wait(call.id, code);
            return self.agree("wait", &store, &model);
        }
        let costs = self.costs();
        let stale = self.dice.one_in(8);
        let version = if stale { call.version - 1 } else { call.version };
        let record = CallRecord { version, ..self.record(&call) };
        let begin = Begin {
            record,
            body: Bytes::new(),
            arguments: Bytes::new(),
            states: Bytes::new(),
            charges: self.charges(&costs),
            release: true,
        };
        let store = self.begun(begin);
        self.model.tick(self.clock());
        let model = self.model.release(call.id, version, costs);
        self.agree("release", &store, &model);
        self.on_the_wire(&store);
    }

    fn conclude(&mut self) {
        if self.fates.is_empty() {
            return self.begin();
        }
        // Rather a late one than an old one.
        let open = |f: &&Fate| !self.model.call(f.call).state.over();
        let open: Vec<Fate> = self.fates.iter().filter(open).copied().collect();
        let from = if open.is_empty() || self.dice.one_in(5) { &self.fates } else { &open };
        let fate = from[self.dice.below(from.len())];
        // What can honestly be said: an answer only of what was executed, "not sent" only of what never will be.
        let earlier = |f: &&Fate| f.call == fate.call && f.attempt < fate.attempt;
        let clean = self.fates.iter().filter(earlier).all(|f| f.lands.is_none());
        let mut to = match (fate.lands, self.dice.below(4)) {
            (_, 0) => St::Unknown,
            (Some(_), 1) => St::Failed,
            (Some(_), _) => St::Succeeded,
            (None, _) => St::NotExecuted,
        };
        if to == St::NotExecuted && !clean && fate.attempt == 1 {
            to = St::Unknown;
        }
        self.conclude_as(fate, to);
    }

    fn conclude_as(&mut self, fate: Fate, to: St) {
        let Fate { call, mut attempt, mut epoch, .. } = fate;
        match self.dice.below(12) {
            0 => attempt += 1,
            1 => epoch += 1,
            _ => {}
        }
        if (attempt, epoch) != (fate.attempt, fate.epoch)
            && self.fates.iter().any(|f| (f.call, f.attempt, f.epoch) == (call, attempt, epoch))
        {
            (attempt, epoch) = (fate.attempt, fate.epoch);
        }
        let conclusion = Conclusion {
            state: state(to),
            answer: matches!(to, St::Succeeded | St::Failed).then(|| (200, vec![])),
            body: AnswerBody::Kept(Bytes::from_static(b"answer")),
            note: None,
        };
        let by = Begun { id: CallId::from_bits(call), attempt, epoch };
        let store = self.place.block(self.place.store().conclude(by, conclusion));
        let store = store.map(|r| Some(see(&r))).map_err(|_| "stale".to_owned());
        self.model.tick(self.clock());
        let model = self.model.conclude(call, attempt, epoch, to);
        self.agree("conclude", &store, &model);
    }

    fn again(&mut self) {
        if self.fates.is_empty() {
            return;
        }
        let resendable: Vec<Fate> = self.fates.iter().filter(|f| self.model.call(f.call).resend).copied().collect();
        let from = if resendable.is_empty() { &self.fates } else { &resendable };
        let fate = from[self.dice.below(from.len())];
        self.model.tick(self.clock());
        if self.dice.one_in(4) {
            self.place.block(self.place.store().give_up(CallId::from_bits(fate.call))).unwrap();
            self.model.give_up(fate.call);
            return self.get_one(fate.call);
        }
        let lost = Begun { id: CallId::from_bits(fate.call), attempt: fate.attempt, epoch: fate.epoch };
        let store = self.place.block(self.place.store().again(&lost)).unwrap();
        let store = Ok(store.map(|(_, r)| see(&r)));
        let model = self.model.again(fate.call, fate.attempt, fate.epoch);
        self.agree("again", &store, &model);
        self.on_the_wire(&store);
    }

    /// Whether the upstream has done it by then.
    fn done_by(&self, id: u128, at: Ms) -> bool {
        self.fates.iter().any(|f| f.call == id && f.lands.is_some_and(|l| l <= at))
    }

    /// The configured read tells what the upstream shows when it is asked; the answer may come later.
    fn read(&mut self) {
        let Some(call) = self.any(Some(St::Unknown)).filter(|c| c.attempt > 0) else { return };
        let now = self.model.tick(self.clock());
        let asked = now - self.dice.of(&[0, 0, MINUTE, 20 * MINUTE]);
        let found = self.done_by(call.id, asked);
        let answer = self.place.block(self.place.store().read_says(
            CallId::from_bits(call.id),
            found,
            time(asked),
            note("read"),
        ));
        let store = Ok(answer.unwrap().map(|r| see(&r)));
        let model = self.model.read_says(call.id, found, asked);
        self.agree("read", &store, &model);
    }

    fn opine(&mut self) {
        let Some(call) = self.any(Some(St::Unknown)).filter(|c| c.attempt > 0) else { return };
        let cast = self.cast(&call);
        self.opine_as(&call, &cast);
    }

    /// People say what the upstream shows now: before quiescence that may be wrong, and is not taken.
    fn opine_as(&mut self, call: &Call, cast: &Cast) {
        let now = self.model.tick(self.clock());
        let to = if self.done_by(call.id, now) { St::Succeeded } else { St::NotExecuted };
        let (person, aliases, subject) = person(cast.person);
        let reconcile = Reconcile {
            id: CallId::from_bits(call.id),
            version: cast.version,
            person,
            aliases,
            subject,
            outcome: state(to),
            reason: if cast.reason { "asked the bank" } else { " " }.into(),
        };
        let store = held(self.place.block(self.place.store().reconcile(reconcile)));
        let model = self.model.opine(call.id, cast, to);
        self.agree("opine", &store, &model);
    }

    fn time_passes(&mut self) {
        let by = self.dice.of(&[1000, MINUTE, 2 * MINUTE, 5 * MINUTE, 11 * MINUTE, 16 * MINUTE, 61 * MINUTE, 3 * HOUR]);
        let far = self.dice.one_in(12);
        if self.dice.one_in(5) {
            let back = self.clock() - if far { 2 * DAY } else { by };
            self.place.clock.set_wall(time(back));
        } else {
            self.place.clock.advance(span(if far { by + DAY } else { by }));
        }
        self.trace.push(format!("the clock shows {}", self.clock()));
    }

    fn scope(&self, stop: Stop) -> PauseScope {
        match stop {
            Stop::All => PauseScope::All,
            Stop::Agent(n) => PauseScope::Agent(self.principal(n).agent),
            Stop::Tool => PauseScope::Tool("crm".into()),
            Stop::Elsewhere => PauseScope::Workflow("elsewhere".into()),
        }
    }

    fn kill_switch(&mut self) {
        let on = self.model.stops.clone();
        // Most of the time everything flows.
        if !on.is_empty() && !self.dice.one_in(3) {
            let stop = self.dice.of(&on);
            return self.switch(stop, false);
        }
        let stop =
            self.dice.of(&[Stop::All, Stop::Agent(0), Stop::Agent(0), Stop::Agent(1), Stop::Tool, Stop::Elsewhere]);
        let on = !self.dice.one_in(8);
        self.switch(stop, on);
    }

    fn switch(&mut self, stop: Stop, on: bool) {
        let (scope, reason, by) = (self.scope(stop), "odd".to_owned(), "eve".to_owned());
        let done = if on {
            Some(self.place.block(self.place.store().pause(scope, reason, by)).unwrap())
        } else {
            self.place.block(self.place.store().lift(&scope, reason, by)).unwrap()
        };
        self.model.tick(self.clock());
        let model = self.model.switch(stop, on);
        let store = done.map_or((false, 0), |d| (d.changed, d.waiting));
        self.trace.push(format!("{stop:?} is stopped: {on}: {store:?}"));
        assert_eq!(store, model, "the kill switch: the store says the left, the model the right");
    }

    fn top_up(&mut self) {
        let ledger = self.dice.below(LEDGERS);
        let (amount, key) = (self.dice.of(&[0, 1, 7]), self.dice.of(&[None, Some(1), Some(2)]));
        let wish = TopUp {
            ledger: self.ledger(ledger),
            amount,
            reason: "a good month".into(),
            by: "eve".into(),
            key: key.map(|k: u8| Digest::of(&[k])),
        };
        let done = self.place.block(self.place.store().top_up(wish)).map(|balance| balance.extra);
        let store = done.map_err(|e| match e {
            TopUpError::NotFound => "not_found",
            TopUpError::Amount => "amount",
            TopUpError::KeyReused => "reused",
            TopUpError::Full => "full",
            TopUpError::Unavailable => "unavailable",
        });
        self.model.tick(self.clock());
        let model = self.model.top_up(ledger, amount, key);
        self.trace.push(format!("ledger {ledger} gets {amount} more under {key:?}: {store:?}"));
        assert_eq!(store, model, "I6: more room: the store says the left, the model the right");
    }

    fn expire(&mut self) {
        let at = self.clock();
        let store = self.place.block(self.place.store().expire_due(time(at))).unwrap();
        let store: Vec<u128> = store.into_iter().map(CallId::bits).collect();
        assert_eq!(store, self.model.expire_due(at), "I16: what is over");
    }

    fn collected(&mut self) {
        let Some(call) = self.any(None) else { return };
        self.place.store().collected(CallId::from_bits(call.id)).unwrap();
        self.model.tick(self.clock());
        self.unsure |= self.model.collected(call.id);
        self.get_one(call.id);
    }

    fn get(&mut self) {
        if let Some(call) = self.any(None) {
            self.get_one(call.id);
        }
    }

    fn get_one(&mut self, id: u128) {
        let store = self.place.block(self.place.store().get(CallId::from_bits(id))).unwrap();
        self.model.tick(self.clock());
        self.model.settle(id);
        let model = Ok(Some(self.model.call(id).seen(self.model.high)));
        self.agree("get", &Ok(store.as_ref().map(see)), &model);
    }

    fn smaller(&mut self) {
        let (now, id) = (self.model.tick(self.clock()), CallId::from_bits(1));
        let answer = self.place.block(self.place.store().get(id)).unwrap();
        assert!(answer.is_none());
        let open = self.place.store().open_calls().unwrap().iter().map(|c| c.calls).sum::<usize>();
        let model = self.model.calls.iter().filter(|c| !c.state.over()).count();
        assert_eq!(open, model, "calls that are open at {now}");
        self.balances();
    }

    /// I6, I7, I10.
    fn balances(&mut self) {
        self.model.tick(self.clock());
        let keys: Vec<LedgerKey> = (0..LEDGERS).map(|n| self.ledger(n)).collect();
        let store = self.place.store().balances(&keys).unwrap();
        let extra: Vec<i64> = store.iter().map(|b| b.extra).collect();
        assert_eq!(extra, (0..LEDGERS).map(|n| self.model.extra(n)).collect::<Vec<_>>(), "I6: what people added");
        let store: Vec<(i64, i64)> = store.iter().map(|b| (b.used, b.reserved)).collect();
        let model: Vec<(i64, i64)> = (0..LEDGERS).map(|n| self.model.balance(n)).collect();
        assert_eq!(store, model, "I10: ledgers, used and set aside");
        let total = |b: (i64, i64)| b.0 + b.1;
        let limits = [120, 80, 80];
        assert!((0..LEDGERS).all(|n| total(store[n]) <= limits[n] + extra[n]), "I6: {store:?} with {extra:?} more");
        assert_eq!(total(store[0]), total(store[1]) + total(store[2]), "I7: a parent covers its children");
    }

    /// Every call as the store lists it, and what must always hold.
    fn all_agree(&mut self) {
        let limit = self.model.calls.len();
        let filter = Filter { limit, ..Filter::default() };
        let mut store = self.place.block(self.place.store().list(filter)).unwrap();
        let now = self.model.tick(self.clock());
        // What time decided is recorded before it is listed.
        self.model.expire_due(now);
        store.sort_by_key(|r| r.id);
        let store: Vec<Seen> = store.iter().map(see).collect();
        let model: Vec<Seen> = self.model.calls.iter().map(|c| c.seen(now)).collect();
        assert_eq!(store, model, "I12: the calls that there are");
        self.balances();
        for call in &self.model.calls {
            let lands = |f: &&Fate| f.call == call.id && f.lands.is_some();
            let effects = self.fates.iter().filter(lands).count();
            let begun = self.fates.iter().filter(|f| f.call == call.id).count();
            assert_eq!(begun, call.attempt as usize, "I1: begins of {call:?}");
            assert!(begun <= 1 || call.resend, "I1: {call:?}");
            match call.state {
                St::Succeeded => assert!(effects > 0, "I5: succeeded without an effect: {call:?}"),
                state if state.over() && state != St::Failed => {
                    assert_eq!(effects, 0, "I5: {} with an effect: {call:?}", state.name());
                }
                _ => {}
            }
            if call.state == St::Approved {
                assert!(call.free || call.quorum_holds(), "I3: {call:?}");
            }
        }
    }

    /// In order, or with the files as they are at some moment.
    fn restart(&mut self) {
        self.sum.restarts += 1;
        let killed = self.place.guard.is_some() && self.dice.one_in(2);
        if self.unsure && killed {
            let quiet = AuditNote::plain("sim.sync", Default::default());
            self.place.block(self.place.store().append(quiet, true)).unwrap();
            self.model.framed = self.model.tick(self.clock());
        }
        self.unsure = false;
        if killed {
            let dir = scratch();
            copy(&self.place.dir, dir.path());
            self.place.store = None;
            self.place.dir = dir.path().to_owned();
            self.place.guard = Some(dir);
        } else {
            // Its end is a frame, too.
            self.model.framed = self.model.tick(self.clock());
            self.place.store = None;
        }
        if self.dice.one_in(4) {
            self.time_passes();
        }
        let clock = self.clock();
        let expected = self.model.restart(clock);
        self.reopened(killed, expected);
        if self.dice.one_in(3) {
            // I22: once more, and nothing is left to do.
            self.place.store = None;
            let expected = self.model.restart(clock);
            assert!(expected[0].is_empty());
            self.reopened(false, expected);
        }
        self.all_agree();
    }

    fn reopened(&mut self, killed: bool, [dead, resend, approved]: [Vec<u128>; 3]) {
        let opened = Store::open(&self.place.dir, self.place.clock.clone(), self.place.options.clone());
        let (store, recovery) = opened.unwrap();
        self.place.store = Some(store);
        self.place.epoch = recovery.epoch;
        assert_eq!(recovery.epoch, self.model.epoch, "I15: the epoch");
        let bits = |ids: &[CallId]| ids.iter().map(|i| i.bits()).collect::<Vec<_>>();
        let Recovery { to_unknown, to_resend, approved: waits, .. } = &recovery;
        let found = [bits(to_unknown), bits(to_resend), bits(waits)];
        assert_eq!(found, [dead, resend, approved], "what recovery found: unknown, to send again, approved");
        assert!(!recovery.ledgers_corrected, "I10: recovery corrected the ledgers");
        assert_eq!((recovery.torn_bytes, recovery.records_lost, recovery.rollback.as_deref()), (0, 0, None));
        assert_eq!(recovery.audit_gap, killed, "an orderly end leaves no gap, a kill does");
        self.trace.push(format!("restart, killed: {killed}"));
    }

    /// What is older than two days goes.
    pub fn shorten(&mut self) {
        // It forgets what the index has.
        while self.place.store().health().lag > 0 {
            assert!(self.place.store().healthy(), "the index is not filled any more");
            std::thread::yield_now();
        }
        let end = self.model.tick(self.clock()) - 2 * DAY;
        // All ids say that they were made at the start; the model goes by when things were done.
        if end <= START + DAY {
            return;
        }
        let keep = Keep { calls: span(2 * DAY), artifacts: span(2 * DAY), audit: span(4 * DAY) };
        self.place.block(self.place.store().shorten(keep)).unwrap();
        self.model.framed = self.model.high;
        self.model.forget(end);
        let model = &self.model;
        self.fates.retain(|f| model.calls.iter().any(|c| c.id == f.call));
    }

    /// One more hold, unlike all others.
    pub fn hold(&mut self, n: u32) -> CallRecord {
        let (state, delay, free) = (St::Held, 0, false);
        let mut call = Call { key: None, derived: false, state, delay, free, ..self.fresh(true) };
        call.demand.iter_mut().for_each(|d| d.evidence = false);
        let record = CallRecord { fingerprint: Digest::of(&n.to_be_bytes()), ..self.record(&call) };
        let (body, arguments) = (Bytes::from_static(b"request"), Bytes::new());
        let park = Park {
            record,
            body,
            arguments,
            states: Bytes::new(),
            evidence: vec![],
            max_per_agent: 2000,
            max_total: 2000,
        };
        self.place.block(self.place.store().park(park)).unwrap()
    }

    /// Eve's vote on a hold.
    pub fn approve(&mut self, store: &Store, r: &CallRecord) -> CallRecord {
        let (person, aliases, subject) = person(0);
        let vote = Vote {
            id: r.id,
            version: Some(r.version),
            digest: r.digest,
            person,
            aliases,
            subject,
            groups: names(15),
            as_group: None,
            channel: "api".into(),
            justification: Some("looked at it".into()),
        };
        match self.place.block(store.vote(vote)) {
            Ok(voted) => voted,
            Err(e) => panic!("{e}"),
        }
    }

    /// All that the store tells: calls, what their keys stand for, budgets.
    pub fn dump(&mut self) -> String {
        let filter = Filter { limit: 10_000, ..Filter::default() };
        let mut calls = self.place.block(self.place.store().list(filter)).unwrap();
        calls.sort_by_key(|r| r.id);
        let keys: Vec<LedgerKey> = (0..LEDGERS).map(|n| self.ledger(n)).collect();
        let mut said = format!("{:?}", self.place.store().balances(&keys).unwrap());
        for r in &calls {
            let question = Question {
                principal: &r.principal,
                operation: &r.operation,
                key: r.key.as_deref(),
                key_derived: r.key_derived,
                fingerprint: r.fingerprint,
            };
            let known = match self.place.block(self.place.store().look_up(question)).unwrap() {
                Known::New => "new".to_owned(),
                Known::Concluded(r) | Known::Held(r) | Known::Over(r) | Known::Unknown(r) => r.id.to_string(),
                Known::InFlight(id) | Known::KeyReused(id) => id.to_string(),
            };
            let body = self.place.block(self.place.store().request_body(r)).unwrap();
            said += &format!("\n{:?} {known} {}", CallRecord { seq: 0, frames: vec![], ..r.clone() }, body.len());
        }
        said
    }

    /// I24: once nothing new comes, every call becomes final. Leaves the store for the next seed.
    pub fn drain(&mut self) {
        self.model.stops.clone().into_iter().for_each(|stop| self.switch(stop, false));
        self.all_agree();
        let clock = self.model.high + 4 * DAY;
        self.place.clock.set_wall(time(clock));
        self.expire();
        let reason = |person| Cast { person, version: None, digest: 0, groups: 0, as_group: None, reason: true };
        for call in self.model.calls.clone() {
            if call.state == St::Dispatching {
                let fate = *self.fates.iter().rfind(|f| f.call == call.id).unwrap();
                self.model.tick(clock);
                let by = Begun { id: CallId::from_bits(call.id), attempt: fate.attempt, epoch: fate.epoch };
                let conclusion = Conclusion { state: State::Unknown, answer: None, body: AnswerBody::None, note: None };
                let store = self.place.block(self.place.store().conclude(by, conclusion)).unwrap();
                let model = self.model.conclude(call.id, fate.attempt, fate.epoch, St::Unknown);
                self.agree("end", &Ok(Some(see(&store))), &model);
            }
            for person in [1, 2] {
                if self.model.call(call.id).state == St::Unknown {
                    self.opine_as(&call, &reason(person));
                }
            }
        }
        self.all_agree();
        assert!(self.model.calls.iter().all(|c| c.state.over()), "I24: calls are left open");
        assert!((0..LEDGERS).all(|n| self.model.balance(n).1 == 0), "I10: something is set aside for nobody");
    }
}
