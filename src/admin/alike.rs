//! What people said of calls like one that waits: for approvers to compare with, never a reason to decide by itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::call::{Timestamp, duration_text, money_text, visible};
use crate::store::{Alike, CallRecord, Store};

use super::Admin;
use super::ask::Asker;
use super::group;
use super::problem::Problem;

/// So many approvals tell what is usual.
const ENOUGH: u64 = 5;

/// What is known of calls like one.
#[derive(Debug, Default)]
pub(super) struct Like {
    counts: Alike,
    cluster: Option<String>,
    last: Option<Rejected>,
}

/// The one that was rejected last.
#[derive(Debug)]
struct Rejected {
    hold: String,
    code: String,
    by: String,
    at: Timestamp,
}

impl Like {
    /// What was counted, without the one that was rejected last: for those of whom it is not known what they may see.
    pub(super) fn counted(store: &Store, record: &CallRecord) -> Self {
        // What cannot be counted is no reason not to look.
        Self { counts: store.alike(record).unwrap_or_default(), ..Self::default() }
    }

    pub(super) async fn of(admin: &Admin, asker: &Asker<'_>, record: &CallRecord) -> Result<Self, Problem> {
        let counts = admin.store.alike(record)?;
        let last = match counts.last_rejected.filter(|id| *id != record.id) {
            Some(id) => admin.store.get(id).await?,
            None => None,
        };
        let last = last.filter(|r| asker.may("hold.view", r)).and_then(|r| {
            let note = r.note?;
            Some(Rejected {
                hold: r.id.hold().to_string(),
                code: note.code,
                by: note.by.unwrap_or_default(),
                at: r.updated,
            })
        });
        Ok(Self { counts, cluster: group::cluster(record), last })
    }

    /// What is odd about the amount, where enough were approved to say so.
    pub(super) fn doubt(&self, record: &CallRecord) -> Option<String> {
        let (minor, currency) = record.money.as_ref()?;
        let c = &self.counts;
        let usual = c.largest.filter(|largest| c.approved + c.edited >= ENOUGH && minor > largest)?;
        let (count, most) = (c.approved + c.edited, money_text(usual, currency));
        Some(format!("More than any of the {count} alike that were approved in 30 days; the largest was {most}."))
    }

    pub(super) fn json(&self) -> Value {
        let c = &self.counts;
        json!({
            "cluster": self.cluster,
            "d30": {"approved": c.approved, "rejected": c.rejected, "edited": c.edited, "median_s": c.median_s},
            "last_rejected": self.last.as_ref().map(|r| json!({
                "hold": r.hold, "reason_code": r.code, "by": r.by, "at": r.at,
            })),
        })
    }

    /// In one line; empty where nothing is known.
    pub(super) fn words(&self) -> String {
        let c = &self.counts;
        if c.approved + c.edited + c.rejected == 0 {
            return String::new();
        }
        let text = |s: u64| if s == 0 { "under 1s".to_owned() } else { duration_text(Duration::from_secs(s)) };
        let waited = c.median_s.map(|s| format!(" · median wait {}", text(s)));
        format!(
            "{} approved · {} rejected · {} changed first{}",
            c.approved,
            c.rejected,
            c.edited,
            waited.unwrap_or_default()
        )
    }

    /// Where the one is that was rejected last, and in a few words why.
    pub(super) fn last(&self) -> Option<(String, String)> {
        let r = self.last.as_ref()?;
        Some((format!("/holds/{}", r.hold), visible(&format!("{} ({}, {})", r.code, r.by, r.at))))
    }
}
