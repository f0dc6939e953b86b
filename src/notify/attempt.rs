//! One attempt to tell a receiver, by its channel.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::call::Fault;
use crate::config::{Channel, NotifyRule, Smtp, Webhook};
use crate::gates::upstream::exchange;
use crate::store::{CallRecord, News, Told};

use super::events::{self, Event};
use super::outbox::{Failed, Which};
use super::{Notifier, Receiver, id_of, mail, webhook};

/// An event as it is told, and the record that it was made of.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) id: String,
    pub(super) event: Event,
    pub(super) news: News,
}

impl Telling {
    /// The held call that it is about.
    pub(super) fn held(&self) -> Option<&CallRecord> {
        match &self.news.told {
            Told::Step(_, record) if record.terms.is_some() => Some(record),
            _ => None,
        }
    }
}

/// Something of ours went wrong: another time it may not.
pub(super) fn ours(fault: Fault) -> Failed {
    Failed::again(fault.chain())
}

impl Notifier {
    /// Tells a receiver these events: one, or several that are told together.
    pub(super) async fn attempt(&self, rule: &NotifyRule, to: &Receiver, due: &[Which]) -> Result<(), Failed> {
        let tellings = self.tellings(due).await?;
        match &rule.channel {
            Channel::Webhook(hook) => {
                for telling in &tellings {
                    self.post(hook, telling).await?;
                }
                Ok(())
            }
            Channel::Slack(slack) => {
                for telling in &tellings {
                    self.say(slack, to, telling).await?;
                }
                Ok(())
            }
            Channel::Smtp(smtp) => self.write(smtp, &tellings).await,
        }
    }

    /// What is not kept any more is left out, unless that is all.
    async fn tellings(&self, due: &[Which]) -> Result<Vec<Telling>, Failed> {
        let page = self.snapshots.current().config.reviews.url.clone();
        let mut all = Vec::new();
        for which in due {
            let Some(news) = self.told(which.seq).await.map_err(ours)? else { continue };
            let event = events::of(&news, page.as_deref()).into_iter().nth(which.n);
            all.extend(event.map(|event| Telling { id: id_of(*which, &news.hash), event, news }));
        }
        if all.is_empty() { Err(Failed::for_good("its record is not kept any more")) } else { Ok(all) }
    }

    async fn post(&self, to: &Webhook, telling: &Telling) -> Result<(), Failed> {
        let Telling { id, event, news } = telling;
        let body = json!({"type": event.name, "timestamp": news.at.to_string(), "data": event.data}).to_string();
        let request = webhook::request(to, id, Bytes::from(body), self.clock.now());
        let answer = exchange(request.map_err(ours)?, Arc::clone(&self.clock)).await;
        webhook::judged(answer.map_err(ours)?.status())
    }

    async fn write(&self, smtp: &Smtp, tellings: &[Telling]) -> Result<(), Failed> {
        let mut items = Vec::new();
        for telling in tellings {
            let now = match telling.held() {
                Some(held) => self.store.get(held.id).await.map_err(ours)?,
                None => None,
            };
            items.push(mail::Item { telling, now });
        }
        let page = self.snapshots.current().config.reviews.url.clone().unwrap_or_default();
        let letter = mail::letter(smtp, &items, &page, self.clock.now()).map_err(ours)?;
        mail::send(smtp, letter).await
    }
}
