//! The load on one process: agents, approvers and operators at the same time, until it is over or all have had enough.

use serde_json::json;

use crate::chance::Chance;
use crate::client::{Ask, Client, World};
use crate::ledger::Upstream;
use crate::site::{AGENTS, Process, scarce};

/// What the load dwells on, so that a point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    All,
    /// Holds that one person decides.
    Held,
    Dual,
    /// Approved, and the budget has no room: waits.
    Waiting,
    Short,
    Ticket,
    Reject,
    Edit,
    /// What people do about a hold beside deciding.
    Handle,
    Withdraw,
    Export,
    Unknown,
    /// The kill switch goes on and off while calls wait.
    Halt,
    /// Budgets get more room.
    TopUp,
    /// Declared idempotent: may be sent again.
    Declared,
    /// Looked up when it is lost.
    Read,
    /// Over at once, and nothing else: nothing keeps a segment of the journal.
    Brief,
    Money,
    Retry,
}

/// Kinds of calls, as `make` numbers them.
const KINDS: u64 = 120;

#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub world: &'a World,
    pub process: &'a Process,
    pub upstream: &'a Upstream,
    pub focus: Focus,
    pub round: usize,
    /// How much each of them does.
    pub steps: usize,
}

impl Load<'_> {
    /// Runs it. `half` is called when half of the work of one agent is done.
    pub async fn run(self, chance: &mut Chance, half: impl Fn()) {
        let agents = [0, 1, 0, 1, 0].map(|agent| (agent, chance.fork()));
        let approvers = [chance.fork(), chance.fork()];
        let operator = chance.fork();
        let agents = agents.into_iter().enumerate().map(|(i, (agent, chance))| {
            let half = &half;
            async move {
                let halfway = || {
                    if i == 0 {
                        half()
                    }
                };
                self.agent(agent, chance, halfway).await;
            }
        });
        let approvers = approvers.map(|chance| self.approver(chance));
        tokio::join!(
            futures_util::future::join_all(agents),
            futures_util::future::join_all(approvers),
            self.operator(operator)
        );
    }

    fn client(&self) -> Client<'_> {
        Client { world: self.world, process: self.process }
    }

    async fn agent(&self, agent: usize, mut chance: Chance, half: impl Fn()) {
        for step in 0..self.steps {
            if step == self.steps / 2 {
                half();
            }
            if self.process.is_over() {
                return;
            }
            let again = match self.focus {
                Focus::Retry => 70,
                Focus::Brief => 0,
                _ => 40,
            };
            let own = if matches!(self.focus, Focus::Ticket | Focus::Withdraw) { 75 } else { 94 };
            match chance.below(100) {
                n if n < again => self.again(&mut chance).await,
                n if n < own => self.fresh(agent, &mut chance).await,
                _ => self.own(&mut chance).await,
            };
        }
    }

    /// Something new.
    async fn fresh(&self, agent: usize, chance: &mut Chance) -> Option<()> {
        let mut ask = self.make(agent, chance).await?;
        // Now and then an impatient agent asks twice at once: a race for the key.
        let (client, mut twin, twice) = (self.client(), ask.clone(), chance.percent(15));
        let second = async { if twice { client.ask(&mut twin).await } else { None } };
        let (got, _) = tokio::join!(client.ask(&mut ask), second);
        // A key is never used for anything else; one that is must be refused.
        if ask.key.is_some() && chance.percent(4) {
            let mut other = Ask { body: json!({"noteId": "other", "text": "another"}), ..ask.clone() };
            other.path = format!("/crm/notes/{}", self.world.name("o"));
            let _ = self.client().ask(&mut other).await;
        }
        self.world.asks.lock().unwrap().push(ask);
        got.map(drop)
    }

    async fn make(&self, agent: usize, chance: &mut Chance) -> Option<Ask> {
        let kind = if self.focus == Focus::Brief || chance.percent(60) {
            self.focus.kind(chance)
        } else {
            chance.below(KINDS)
        };
        let refund = |minor: u64, currency: &str| {
            let body = json!({"customerId": "c_1", "amountMinor": minor, "currency": currency});
            (format!("/crm/orders/{}/refunds", self.world.name("r")), body)
        };
        let note = |what: &str| {
            let name = self.world.name("t");
            (format!("/crm/{what}/{name}"), json!({"text": format!("text of {name}")}))
        };
        let minor = chance.below(4000) + 1;
        let payout = |minor: u64| {
            let (_, body) = refund(minor, "EUR");
            (format!("/crm/payouts/{}", self.world.name("p")), body)
        };
        let (path, body) = match kind {
            0..30 => note("notes"),
            30..45 => refund(minor, "EUR"),
            45..60 => refund(minor % 900 + 1, &scarce(self.round)),
            60..72 => refund(minor + 5000, "EUR"),
            72..80 => refund(minor + 50_000, "EUR"),
            80..85 => refund(minor + 5000, "GBP"),
            85..88 => refund(minor, "CHF"),
            88..91 => refund(minor, "NOK"),
            91..94 => note("exports"),
            100..108 => payout(minor),
            108..114 => note("marks"),
            114..120 => note("files"),
            _ => (format!("/crm/customers/{}", self.world.name("c")), json!({})),
        };
        let method = if path.contains("/customers/") { "GET" } else { "POST" };
        let keyed = method == "POST" && chance.percent(50);
        let evidence = if (88..91).contains(&kind) { self.client().ticket(agent, None).await } else { None };
        let key = keyed.then(|| self.world.name("k"));
        Some(Ask { method, path, body, key, agent, evidence, call: None, answered: false, waits: false })
    }

    /// What was asked before: what got no answer first, then anything.
    async fn again(&self, chance: &mut Chance) -> Option<()> {
        let picked = {
            let asks = self.world.asks.lock().unwrap();
            let open: Vec<usize> =
                (0..asks.len()).filter(|i| !asks[*i].answered && asks[*i].method == "POST").collect();
            let at = if chance.percent(75) { chance.pick(&open).copied() } else { None };
            at.or_else(|| (!asks.is_empty()).then(|| usize::try_from(chance.below(asks.len() as u64)).unwrap_or(0)))
                .map(|at| (at, asks[at].clone()))
        };
        let (at, mut ask) = picked.filter(|(_, ask)| !ask.waits || chance.percent(3))?;
        self.client().ask(&mut ask).await?;
        self.world.asks.lock().unwrap()[at] = ask;
        Some(())
    }

    /// What an agent may ask about its own calls.
    async fn own(&self, chance: &mut Chance) -> Option<()> {
        let ask = {
            let asks = self.world.asks.lock().unwrap();
            let told: Vec<&Ask> = asks.iter().filter(|a| a.call.is_some() && a.method == "POST").collect();
            let newest = &told[told.len().saturating_sub(12)..];
            chance.pick(if self.focus == Focus::Ticket { newest } else { &told }).map(|a| (*a).clone())
        }?;
        let call = ask.call.clone()?;
        let withdraws = if self.focus == Focus::Withdraw { 70 } else { 15 };
        match chance.below(100) {
            n if n < withdraws => {
                self.client().own(ask.agent, "DELETE", &format!("/-/calls/{call}"), None).await.map(drop)
            }
            n if n < withdraws + if self.focus == Focus::Ticket { 60 } else { 20 } => {
                self.client().ticket(ask.agent, Some(&call)).await.map(drop)
            }
            _ => self.client().state(ask.agent, &call).await,
        }
    }

    async fn approver(&self, mut chance: Chance) {
        for _ in 0..self.steps {
            if self.process.is_over() {
                return;
            }
            let hold = {
                let holds = self.world.holds.lock().unwrap();
                // Most often a new one.
                let newest = &holds[holds.len().saturating_sub(12)..];
                chance.pick(if chance.clone().percent(80) { newest } else { &holds }).cloned()
            };
            match hold {
                Some(hold) => drop(self.judge(&hold, &mut chance).await),
                None => tokio::task::yield_now().await,
            }
        }
    }

    async fn judge(&self, call: &str, chance: &mut Chance) -> Option<()> {
        let client = self.client();
        let name = *chance.pick(&["maya", "mia", "li", "lou", "ana"])?;
        let hold = call.replacen("call_", "hold_", 1);
        let read = client.reviewer(name, "GET", &format!("/v1/holds/{hold}"), None).await?.json();
        let mut digest = read["digest"].clone();
        if chance.percent(4) {
            digest = json!(holdpoint::call::Digest::of(b"another").to_string());
        }
        let no = json!({"digest": digest, "reason_code": "wrong_amount", "message_to_agent": "no"});
        let mut yes = json!({"digest": digest, "justification": "seen twice"});
        // Calls like it may pass by themselves then, until one is rejected; not each time that is policy's to allow.
        if read["tier"] == "medium" && chance.percent(30) {
            let order = json!({"path": "/orderId", "any": true});
            yes["grant"] = json!({"pins": [order, {"path": "/amountMinor", "max": 50_000}]});
        }
        if chance.percent(if self.focus == Focus::Edit { 50 } else { 4 }) {
            let patch = json!([{"op": "replace", "path": "/customerId", "value": self.world.name("c")}]);
            let edit = json!({"digest": digest, "patch": patch, "note": "another customer"});
            return client.decide(name, "holds", call, "edit", edit).await.map(drop);
        }
        if chance.percent(if self.focus == Focus::Handle { 70 } else { 8 }) {
            return handle(&client, name, call, chance).await;
        }
        let (rejects, withdraws) = match self.focus {
            Focus::Reject => (50, 5),
            Focus::Withdraw => (5, 50),
            _ => (8, 6),
        };
        match chance.below(100) {
            n if n < rejects => client.decide(name, "holds", call, "reject", no).await?,
            n if n < rejects + withdraws => {
                client.decide(name, "holds", call, "withdraw", json!({"reason": "not needed"})).await?
            }
            _ => client.decide(name, "holds", call, "approve", yes).await?,
        };
        Some(())
    }

    /// Two operators say what became of unknown calls; they can look it up.
    async fn operator(&self, mut chance: Chance) {
        // One that died in the middle has left it on.
        if self.all_go_on().await.is_none() {
            return;
        }
        let often = matches!(self.focus, Focus::Unknown | Focus::Halt | Focus::TopUp);
        for _ in 0..if often { self.steps } else { self.steps / 6 } {
            if self.process.is_over() {
                return;
            }
            if chance.percent(if self.focus == Focus::Halt { 60 } else { 4 })
                && self.switch(&mut chance).await.is_none()
            {
                return;
            }
            if chance.percent(if self.focus == Focus::TopUp { 70 } else { 3 })
                && self.top_up(&mut chance).await.is_none()
            {
                return;
            }
            if self.settle(&mut chance).await.is_none() {
                return;
            }
        }
    }

    async fn all_go_on(&self) -> Option<()> {
        let on = self.client().reviewer("omar", "GET", "/v1/kill", None).await?.json();
        for pause in on["items"].as_array()? {
            self.client().switch("resume", pause["scope"].as_str()?).await?;
        }
        Some(())
    }

    /// Stops something, looks on for a moment, and lets it go on.
    async fn switch(&self, chance: &mut Chance) -> Option<()> {
        let scope = chance.pick(&["all", "agent:support-bot", "agent:other-bot", "tool:crm", "workflow:refunds"])?;
        self.client().switch("kill", scope).await?;
        for _ in 0..chance.below(3) {
            self.settle(chance).await?;
        }
        self.client().switch("resume", scope).await
    }

    /// Gives some budget more room.
    async fn top_up(&self, chance: &mut Chance) -> Option<()> {
        let listed = self.client().reviewer("omar", "GET", "/v1/budgets", None).await?.json();
        let Some(id) = chance.pick(listed["items"].as_array()?).and_then(|b| b["id"].as_str()) else { return Some(()) };
        self.client().top_up(id, chance.below(500) + 1).await
    }

    async fn settle(&self, chance: &mut Chance) -> Option<()> {
        let client = self.client();
        let listed = client.reviewer("omar", "GET", "/v1/calls?state=unknown&limit=100", None).await?.json();
        let items = listed["items"].as_array()?;
        let call = chance.pick(items)?["call_id"].as_str()?.to_owned();
        let shown = client.reviewer("omar", "GET", &format!("/v1/calls/{call}"), None).await?.json();
        let headers = shown["call"]["request"]["headers"].as_array()?.clone();
        let nonce = headers.iter().find(|h| h[0] == "x-nonce").and_then(|h| h[1].as_str())?;
        // A request that may be on its way still is not decided by anybody.
        let Some(executed) = self.upstream.fate(nonce) else { return Some(()) };
        let outcome = if executed { "succeeded" } else { "not_executed" };
        let who: &[&str] = if chance.percent(50) { &["omar", "omar", "pia"] } else { &["pia", "omar"] };
        for name in who {
            let said = json!({"outcome": outcome, "reason": "looked it up"});
            client.decide(name, "calls", &call, "reconcile", said).await?;
        }
        Some(())
    }
}

/// A claim, a word, a question, an escalation.
async fn handle(client: &Client<'_>, name: &str, call: &str, chance: &mut Chance) -> Option<()> {
    let (action, said) = match chance.below(6) {
        0..=1 => ("claim", json!({"minutes": 1, "take_over": chance.percent(50)})),
        2 => ("comments", json!({"text": "seen"})),
        3 => ("evidence-requests", json!({"kinds": ["ticket"], "message_to_agent": "which one?"})),
        4 => ("escalate", json!({"to": "leads", "reason": "unsure"})),
        _ => {
            // Only one's own can be let go.
            let own = json!({"take_over": true});
            client.decide(name, "holds", call, "claim", own).await?;
            let hold = call.replacen("call_", "hold_", 1);
            return client.reviewer(name, "DELETE", &format!("/v1/holds/{hold}/claim"), None).await.map(drop);
        }
    };
    client.decide(name, "holds", call, action, said).await.map(drop)
}

impl Focus {
    /// A kind of call, as `make` numbers them.
    fn kind(self, chance: &mut Chance) -> u64 {
        let (from, to) = match self {
            Self::All | Self::Unknown | Self::Retry => (0, KINDS),
            Self::Declared => (100, 114),
            Self::Read => (100, 120),
            Self::Brief => (0, 60),
            Self::Held | Self::Halt | Self::Reject | Self::Edit | Self::Handle | Self::Withdraw => (60, 72),
            Self::Dual => (72, 80),
            Self::Waiting => (80, 85),
            Self::Short => (85, 88),
            Self::Ticket => (88, 91),
            Self::Export => (91, 94),
            Self::Money | Self::TopUp => (30, 60),
        };
        from + chance.below(to - from)
    }

    /// What a point needs; where anything will do, one after the other.
    pub fn of(point: &str, times: u64) -> Self {
        match point.split('.').next().unwrap_or_default() {
            "park" | "parked" | "approved" | "resume" => Self::Held,
            "vote" | "voted" => Self::Dual,
            "wait" | "waiting" | "renew" | "renewed" | "revoke" | "revoked" => Self::Waiting,
            "expire" | "expired" | "expiring" => Self::Short,
            "attach" | "attached" | "artifact" => Self::Ticket,
            "reject" | "rejected" => Self::Reject,
            "edit" | "edited" => Self::Edit,
            "handle" | "claimed" | "unclaimed" | "commented" | "evidence_asked" | "escalated" => Self::Handle,
            "pause" | "paused" | "halted" | "lift" | "resumed" | "continued" => Self::Halt,
            "top_up" | "topped_up" => Self::TopUp,
            "withdraw" | "withdrawn" => Self::Withdraw,
            "flow" => Self::Export,
            "again" | "begun_again" => Self::Declared,
            "read" | "found" | "not_found" => Self::Read,
            "shorten" => Self::Brief,
            "reconcile" | "opined" | "reconciled" => Self::Unknown,
            "collected" | "note" => Self::Retry,
            "send" | "begin" | "begun" | "conclude" | "concluded" | "upstream" => Self::Money,
            _ => match times % 4 {
                1 => Self::Dual,
                2 => Self::Reject,
                _ => Self::All,
            },
        }
    }
}

/// One for each agent.
const _: () = assert!(AGENTS.len() == 2);
