//! What happens in the demo, told line by line as it happens.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::{Agent, Timed};
use super::crm::Refund;
use super::people::Person;
use super::world::World;

/// What the agent was told, for the comparison with the CRM's books.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) through: u32,
    pub(super) refused: u32,
    pub(super) held: u32,
    pub(super) released: u32,
    pub(super) replayed: u32,
    pub(super) asked: i64,
    pub(super) refunds: Vec<Refund>,
}

struct Story<'a, W> {
    world: &'a World,
    script: bool,
    agent: Agent,
    told: Told,
    out: &'a mut W,
}

pub(super) const WAIT: Duration = Duration::from_millis(200);

pub(super) async fn tell<W: Write>(world: &World, script: bool, out: &mut W) -> anyhow::Result<Told> {
    let agent = Agent { key: world.secret("support-bot")?, proxy: world.running.agents };
    let mut story = Story { world, script, agent, told: Told::default(), out };
    story.opening()?;
    tokio::select! {
        told = story.scenes() => told?,
        _ = tokio::signal::ctrl_c() => writeln!(story.out, "\n  Ctrl-C")?,
    }
    Ok(story.told)
}

impl<W: Write> Story<'_, W> {
    fn opening(&mut self) -> anyhow::Result<()> {
        let w = self.world;
        writeln!(
            self.out,
            "holdpoint {} demo        everything is local and thrown away at the end\n",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(self.out, "  toy CRM       http://{}", w.crm)?;
        writeln!(self.out, "  toy tickets   http://{}/mcp", w.tickets)?;
        writeln!(self.out, "  proxy         http://{}        agents talk to this", w.running.agents)?;
        writeln!(self.out, "  review page   http://{}        sign in with one of these:", w.running.admin)?;
        for (name, group) in [("maya", "support-leads"), ("li", "finance"), ("sam", "data-stewards")] {
            writeln!(self.out, "                {name:<5} {group:<14} {}", w.secret(name)?)?;
        }
        writeln!(self.out)?;
        Ok(())
    }

    async fn scenes(&mut self) -> anyhow::Result<()> {
        let read = self.agent.get("/crm/customers/c_204").await?;
        self.line("get customer c_204", &read)?;
        let small = self.agent.refund("o_900", 1200, "demo-1", "").await?;
        self.refund_told("o_900", 1200, &small);
        self.line("refund 12.00 EUR  o_900", &small)?;
        let never = self.agent.update("c_204", &json!({"creditLimitMinor": 900_000})).await?;
        self.line("change credit limit c_204", &never)?;
        let wrong = self.agent.update("c_204", &json!({"emial": "x@example.com"})).await?;
        self.line("update with a misspelt field", &wrong)?;
        let evidence = self.evidence().await?;
        self.held("o_913", 8800, "demo-2", &evidence, &["maya"]).await?;
        let again = self.agent.refund("o_913", 8800, "demo-2", &evidence).await?;
        self.line("the same refund again (a retry)", &again)?;
        let evidence = self.evidence().await?;
        self.held("o_881", 88_000, "demo-3", &evidence, &["maya", "li"]).await?;
        self.tickets().await
    }

    async fn evidence(&self) -> anyhow::Result<String> {
        let ticket = self.agent.evidence("ticket", "T-4410 double charged", "The customer was charged twice.").await?;
        let order = self.agent.evidence("order", "the order", "Paid on 2026-11-20.").await?;
        Ok(format!("{ticket}, {order}"))
    }

    /// A refund that people must approve; then the agent comes back for the real answer.
    async fn held(
        &mut self,
        order: &str,
        minor: i64,
        key: &str,
        evidence: &str,
        by: &[&'static str],
    ) -> anyhow::Result<()> {
        let what = format!("refund {}  {order}", crate::call::money_text(minor, "EUR"));
        let first = self.agent.refund(order, minor, key, evidence).await?;
        self.line(&what, &first)?;
        let hold = text(&first, "hold");
        self.decided(&hold, by).await?;
        let last = self.collect(|agent| Box::pin(agent.refund(order, minor, key, evidence))).await?;
        self.told.released += u32::from(last.answer.status.is_success());
        self.refund_told(order, minor, &last);
        self.line(&format!("{what}, asked again"), &last)
    }

    async fn tickets(&mut self) -> anyhow::Result<()> {
        let list = self.agent.mcp(1, "tools/list", json!({})).await?;
        let count = list.answer.json.pointer("/result/tools").and_then(Value::as_array).map_or(0, Vec::len);
        self.line(&format!("MCP tools/list: {count} tools"), &list)?;
        let delete = || json!({"name": "delete_ticket", "arguments": {"ticketId": "T-5512", "hard": true}});
        let first = self.agent.mcp(2, "tools/call", delete()).await?;
        self.line("MCP delete_ticket T-5512, hard", &first)?;
        let hold = first.answer.json.pointer("/result/_meta/dev.holdpoint~1hold/holdId").and_then(Value::as_str);
        let hold = hold.unwrap_or_default().to_owned();
        self.decided(&hold, &["maya", "sam"]).await?;
        let last = self.collect(|agent| Box::pin(agent.mcp(3, "tools/call", delete()))).await?;
        let done = self.world.deleted.ids().contains("T-5512");
        self.told.released += u32::from(done);
        self.line("MCP delete_ticket, asked again", &last)?;
        if !done && last.answer.header("holdpoint-decision") == "replayed" {
            anyhow::bail!("the agent was told of a deletion that the ticket server did not make");
        }
        Ok(())
    }

    /// Lets people decide: by script, or by waiting for them.
    async fn decided(&mut self, hold: &str, by: &[&'static str]) -> anyhow::Result<()> {
        let person = |name: &'static str| -> anyhow::Result<Person> {
            Ok(Person { name, token: self.world.secret(name)?, admin: self.world.running.admin })
        };
        let people = by.iter().map(|name| person(name)).collect::<anyhow::Result<Vec<_>>>()?;
        if !self.script {
            return self.wait_for_people(hold, &people).await;
        }
        for person in &people {
            let words = (people.len() > 1).then_some("Second charge confirmed against the bank statement.");
            let vote = person.approve(hold, words).await?;
            let state = vote.json.get("state").and_then(Value::as_str).unwrap_or("refused");
            let mark = if vote.status.is_success() { "✓" } else { "✗" };
            let detail = if vote.status.is_success() { String::new() } else { vote.json.to_string() };
            writeln!(
                self.out,
                "  {:<13} {:<38} {mark} {state} {detail}",
                person.name,
                format!("approves {}", short(hold))
            )?;
        }
        Ok(())
    }

    async fn wait_for_people(&mut self, hold: &str, people: &[Person]) -> anyhow::Result<()> {
        let names: Vec<_> = people.iter().map(|p| p.name).collect();
        let admin = self.world.running.admin;
        writeln!(self.out, "                waiting for {}: http://{admin}/holds/{hold}", names.join(" and "))?;
        writeln!(
            self.out,
            "                or  HOLDPOINT_TOKEN=… holdpoint holds --url http://{admin} approve {}",
            short(hold)
        )?;
        let Some(watcher) = people.first() else { return Ok(()) };
        while matches!(watcher.state(hold).await?.as_str(), "held" | "approved" | "dispatching") {
            tokio::time::sleep(WAIT).await;
        }
        Ok(())
    }

    /// Comes back until the answer is no longer "held".
    async fn collect<'b>(
        &'b self,
        ask: impl Fn(&'b Agent) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<Timed>> + 'b>>,
    ) -> anyhow::Result<Timed> {
        for _ in 0..50 {
            let answer = ask(&self.agent).await?;
            let waiting = answer.answer.header("holdpoint-decision") == "held" || answer.in_flight();
            if !waiting {
                return Ok(answer);
            }
            tokio::time::sleep(WAIT).await;
        }
        anyhow::bail!("an approved call was not sent")
    }

    fn refund_told(&mut self, order: &str, amount: i64, t: &Timed) {
        self.told.asked += amount;
        if t.answer.status.is_success() {
            self.told.refunds.push(Refund { order: order.to_owned(), amount });
        }
    }

    fn line(&mut self, what: &str, t: &Timed) -> anyhow::Result<()> {
        let answer = &t.answer;
        let policies = || {
            let rpc = || answer.json.pointer("/result/_meta/dev.holdpoint~1hold/policies");
            let all = answer.json.get("policies").or_else(rpc).and_then(Value::as_array).into_iter().flatten();
            let ids: Vec<_> = all.filter_map(|p| p.get("id").and_then(Value::as_str)).collect();
            ids.join(", ")
        };
        let said = match answer.header("holdpoint-decision") {
            "allowed" => {
                self.told.through += 1;
                format!("✓ through            {:.1} ms", t.took.as_secs_f64() * 1000.0)
            }
            "replayed" if what.ends_with("asked again") => "✓ sent once, the tool's own answer".to_owned(),
            "replayed" => {
                self.told.replayed += 1;
                "✓ the stored answer, not sent twice".to_owned()
            }
            "held" => {
                self.told.held += 1;
                format!("⏸ held               {}", policies())
            }
            _ => {
                self.told.refused += 1;
                let why = policies();
                format!("✗ refused            {}", if why.is_empty() { text(t, "code") } else { why })
            }
        };
        writeln!(self.out, "  support-bot   {what:<38} {said}")?;
        Ok(())
    }
}

fn text(t: &Timed, member: &str) -> String {
    t.answer.json.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The part of an id that differs.
fn short(hold: &str) -> String {
    hold.chars().skip(hold.chars().count().saturating_sub(6)).collect()
}
