//! Everything that the demo stands up: files in a temporary folder, two toy tools, the proxy.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;

use super::attack::Score;
use super::crm::{self, Ledger};
use super::story::Told;
use super::tickets::{self, Deleted};
use crate::app::{self, Running};
use crate::cli::Exit;
use crate::clock::SystemClock;

const FILES: [(&str, &str); 7] = [
    ("deploy/demo/holdpoint.yaml", include_str!("../../deploy/demo/holdpoint.yaml")),
    ("deploy/demo/tickets.lock.json", include_str!("../../deploy/demo/tickets.lock.json")),
    ("policies/agents.cedar", include_str!("../../policies/agents.cedar")),
    ("policies/people.cedar", include_str!("../../policies/people.cedar")),
    ("schemas/refund.json", include_str!("../../schemas/refund.json")),
    ("schemas/update_customer.json", include_str!("../../schemas/update_customer.json")),
    ("README", "A folder of `holdpoint demo`; it is thrown away at the end.\n"),
];

/// The secrets of the demo, made anew each time.
const SECRETS: [&str; 7] = ["support-bot", "report-bot", "maya", "li", "sam", "omar", "crm"];

/// The demo's world.
#[derive(Debug)]
pub(super) struct World {
    dir: PathBuf,
    pub(super) running: Running,
    pub(super) crm: SocketAddr,
    pub(super) tickets: SocketAddr,
    pub(super) ledger: Ledger,
    pub(super) deleted: Deleted,
}

impl World {
    pub(super) async fn start(script: bool) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("holdpoint-demo-{}", crate::call::CallId::new()));
        for (name, text) in FILES {
            write(&dir.join(name), text)?;
        }
        for name in SECRETS {
            write(&dir.join("deploy/demo/secrets").join(name), &secret()?)?;
        }
        let crm = listen(8702, script).await?;
        let tickets = listen(8703, script).await?;
        let (crm_at, tickets_at) = (crm.local_addr()?, tickets.local_addr()?);
        let ledger = crm::start(crm, read(&dir, "crm")?);
        let deleted = tickets::start(tickets);
        let config = dir.join("deploy/demo/holdpoint.yaml");
        let (agents, admin) = (free(8700, script).await?, free(8701, script).await?);
        let text = std::fs::read_to_string(&config)?
            .replace("127.0.0.1:8702", &crm_at.to_string())
            .replace("127.0.0.1:8703", &tickets_at.to_string())
            .replace("agents: 127.0.0.1:8700", &format!("agents: {agents}"))
            .replace("admin: 127.0.0.1:8701", &format!("admin: {admin}"))
            .replace("inline_wait: 3s ", if script { "inline_wait: 0s " } else { "inline_wait: 3s " });
        std::fs::write(&config, text)?;
        let loaded = app::load(&config)?;
        let running = app::start(config, loaded, Arc::new(SystemClock), 1).await?;
        Ok(Self { dir, running, crm: crm_at, tickets: tickets_at, ledger, deleted })
    }

    /// A secret of somebody in the story.
    pub(super) fn secret(&self, name: &str) -> anyhow::Result<String> {
        read(&self.dir, name)
    }

    /// Says how the tricks ended; the CRM must have made what people approved, and nothing else.
    pub(super) async fn judge(self, score: Score, out: &mut impl Write) -> anyhow::Result<Exit> {
        let books = self.ledger.refunds();
        self.running.stop().await;
        std::fs::remove_dir_all(&self.dir)?;
        let right = books == score.approved && score.tried == score.stopped;
        writeln!(
            out,
            "\n  {} tricks, {} stopped; the CRM made {} refunds, people approved {}",
            score.tried,
            score.stopped,
            books.len(),
            score.approved.len()
        )?;
        Ok(if right { Exit::Ok } else { Exit::Usage })
    }

    /// Compares the CRM's books with what the agent was told, says so, and cleans up.
    pub(super) async fn end(self, told: Told, out: &mut impl Write) -> anyhow::Result<Exit> {
        let books = self.ledger.refunds();
        self.running.stop().await;
        std::fs::remove_dir_all(&self.dir)?;
        let moved: i64 = books.iter().map(|r| r.amount).sum();
        let text = |minor| crate::call::money_text(minor, "EUR");
        writeln!(out)?;
        writeln!(
            out,
            "  summary       {} through · {} refused · {} held, {} released · {} replayed · {} moved of {} asked",
            told.through,
            told.refused,
            told.held,
            told.released,
            told.replayed,
            text(moved),
            text(told.asked)
        )?;
        if books == told.refunds {
            writeln!(
                out,
                "  books         the CRM made exactly the {} refunds that the agent was told of",
                books.len()
            )?;
            writeln!(out, "  next          put it before your own tools: README.md, \"Yours\"")?;
            return Ok(Exit::Ok);
        }
        writeln!(out, "  books DIFFER  the CRM made {books:?}")?;
        writeln!(out, "                the agent was told of {:?}", told.refunds)?;
        Ok(Exit::Usage)
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}

fn read(dir: &Path, name: &str) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(dir.join("deploy/demo/secrets").join(name))?)
}

fn secret() -> anyhow::Result<String> {
    let mut bytes = [0u8; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The well-known port for people; any free one for scripts, or when it is taken.
async fn listen(port: u16, script: bool) -> std::io::Result<TcpListener> {
    let wanted = if script { 0 } else { port };
    match TcpListener::bind(("127.0.0.1", wanted)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("127.0.0.1", 0)).await,
    }
}

async fn free(port: u16, script: bool) -> std::io::Result<SocketAddr> {
    if script {
        return Ok(SocketAddr::from(([127, 0, 0, 1], 0)));
    }
    listen(port, script).await?.local_addr()
}
