//! Receivers as those who run Holdpoint see them, and telling one again.

use serde_json::{Value, json};

use crate::call::Fault;

use super::events::{self, Event};
use super::outbox::{Item, Which};
use super::{Notifier, id_of, read_id};

impl Notifier {
    /// Each receiver of the configuration in force: how far it was told, what waits, what was given up.
    ///
    /// # Errors
    /// When an outbox cannot be read.
    pub async fn list(&self) -> Result<Vec<Value>, Fault> {
        let mut all = Vec::new();
        for rule in &self.snapshots.current().config.notify {
            let receiver = self.receiver(rule)?;
            let outbox = receiver.outbox().clone();
            let behind = (self.store.span().1 + 1).saturating_sub(outbox.next);
            all.push(json!({
                "name": rule.name,
                "to": rule.channel.to(),
                "events": rule.events,
                "records_behind": behind,
                "waiting": self.items(&outbox.waiting, "due").await,
                "dead": self.items(&outbox.dead, "since").await,
            }));
        }
        Ok(all)
    }

    async fn items(&self, items: &[Item], at: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for item in items.iter().take(100) {
            let news = self.told(item.which.seq).await.ok().flatten();
            let event: Option<Event> = news.as_ref().and_then(|n| events::of(n, None).into_iter().nth(item.which.n));
            let id = news.as_ref().map(|n| id_of(item.which, &n.hash));
            let mut shown = json!({"id": id, "type": event.map(|e| e.name), "attempts": item.tries, "why": item.why});
            shown.as_object_mut().and_then(|s| s.insert(at.to_owned(), json!(item.due.to_string())));
            all.push(shown);
        }
        all
    }

    /// Tells a receiver again: these events, or all that were given up. Gives how many; nothing when there is no such
    /// receiver, or an id is none.
    ///
    /// # Errors
    /// When the outbox cannot be kept: then nothing is told.
    pub async fn replay(&self, name: &str, ids: Option<&[String]>) -> Result<Option<usize>, Fault> {
        let current = self.snapshots.current();
        let Some(rule) = current.config.notify.iter().find(|r| r.name == name) else { return Ok(None) };
        let receiver = self.receiver(rule)?;
        let newest = self.store.span().1;
        let wanted: Option<Vec<Which>> = match ids {
            Some(ids) => ids.iter().map(|id| read_id(id).filter(|w| w.seq <= newest)).collect(),
            None => Some(receiver.outbox().dead.iter().map(|i| i.which).collect()),
        };
        let Some(wanted) = wanted else { return Ok(None) };
        let count = receiver.outbox().replay(&wanted, self.clock.now());
        receiver.save().await?;
        Ok(Some(count))
    }
}
