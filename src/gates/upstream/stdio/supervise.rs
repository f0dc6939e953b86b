//! Keeps the child of one tool alive: starts it, and starts it again after a pause when it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::StdioServer;

use super::hello::Hello;
use super::life::{Desk, End, Life, Unanswered};

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Where a server stands.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// It is about to be there.
    Starting,
    /// It is there.
    Ready(Arc<Hello>),
    /// It is gone, and started again after a pause.
    Down(Arc<str>),
}

/// Runs until the tool goes, or the proxy stops.
pub(super) async fn run(tool: String, server: StdioServer, mut desk: Desk, phase: watch::Sender<Phase>) {
    let mut pauses = Pauses::default();
    while !*desk.stop.borrow() && desk.stop.has_changed().is_ok() {
        let began = Instant::now();
        let end = match Life::begin(&tool, &server) {
            Ok(life) => life.live(&mut desk, &phase).await,
            Err(why) => End::Died(why),
        };
        let End::Died(why) = end else { break };
        let pause = pauses.after(began.elapsed());
        tracing::warn!(
            tool.name = tool,
            why,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the tool's server is down; it is started again after a pause"
        );
        phase.send_replace(Phase::Down(why.as_str().into()));
        if refuse(&mut desk, &why, pause).await.is_err() {
            break;
        }
        phase.send_replace(Phase::Starting);
    }
    phase.send_replace(Phase::Down("it was stopped".into()));
}

struct Stopped;

/// While it is down nothing is kept for later: who asks is told so.
async fn refuse(desk: &mut Desk, why: &str, pause: Duration) -> Result<(), Stopped> {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            _ = desk.stop.wait_for(|stop| *stop) => return Err(Stopped),
            Some(order) = desk.orders.recv() => drop(order.to.answer.send(Err(Unanswered::NotSent(why.to_owned())))),
            Some(_) = desk.gone.recv() => {}
        }
    }
}

/// How long to wait before the next start.
#[derive(Debug)]
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// One that lived for long begins anew.
    fn after(&mut self, lived: Duration) -> Duration {
        let pause = if lived >= LONGEST { FIRST } else { self.0 };
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_it_does_not_live_for_long() {
        let mut pauses = Pauses::default();
        let soon = Duration::from_secs(1);
        let all: Vec<u128> = (0..9).map(|_| pauses.after(soon).as_millis()).collect();
        assert_eq!(all, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(pauses.after(LONGEST), FIRST);
        assert_eq!(pauses.after(soon), FIRST * 2);
    }
}
