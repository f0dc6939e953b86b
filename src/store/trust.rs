//! Trust in what one agent does with one operation in one workflow: spent at once by surprises, earned back slowly by what
//! goes as it should. A score of its own for each, so that nobody earns with harmless calls what harmful ones spend.
//! Sans-io: time comes in, and comes only forward.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::{CallId, Timestamp, Trust};

/// Points are counted in tenths.
const TENTH: i64 = 10;
/// The most.
const MOST: i64 = 100 * TENTH;
/// What one executed call earns that nobody says anything about for [`SILENCE`].
const QUIET: i64 = 2;
/// What all of those earn in a day, at most.
const QUIET_A_DAY: i64 = 4 * TENTH;
const SILENCE: i64 = 24 * HOUR;
/// An agent that asks for the same forbidden thing over and over is one surprise.
const NEAR_MISSES_APART: Duration = Duration::from_secs(600);
/// Surprises are told for so long; so many at most.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const KEPT: usize = 500;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// What spends trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surprise {
    /// An executed call was taken back.
    Undone,
    /// A call was judged bad after the fact.
    JudgedBad,
    /// A reviewer rejected a call as wrong or unsafe.
    Rejected,
    /// Policy refused a call that nobody can release.
    NearMiss,
    /// Reviewers changed a call before they approved it.
    Edited,
}

/// What earns it, beside silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earned {
    /// A held call was approved as its agent had asked for it.
    Approved,
    /// A call was judged good after the fact.
    JudgedGood,
}

impl Surprise {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Undone, Self::JudgedBad, Self::Rejected, Self::NearMiss, Self::Edited];

    /// The word that API, page and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undone => "undone",
            Self::JudgedBad => "judged_bad",
            Self::Rejected => "rejected",
            Self::NearMiss => "near_miss",
            Self::Edited => "edited",
        }
    }

    /// What it spends, in points.
    #[must_use]
    pub const fn points(self) -> i64 {
        match self {
            Self::Undone => 15,
            Self::JudgedBad => 12,
            Self::Rejected => 8,
            Self::NearMiss => 6,
            Self::Edited => 4,
        }
    }

    /// Whether a rejection for this reason says that the call was wrong or unsafe, not that its time had not come.
    #[must_use]
    pub fn is_wrong(reason: &str) -> bool {
        ["wrong_target", "wrong_amount", "unsafe", "suspected_injection"].contains(&reason)
    }
}

/// One surprise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surprised {
    /// What.
    pub kind: Surprise,
    /// When.
    pub at: Timestamp,
    /// By which call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
}

/// Trust, and what it came of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Score {
    tenths: i64,
    /// The newest last.
    surprises: VecDeque<Surprised>,
    /// Hours, the newest last, and executed calls of each that nothing has been said of yet.
    quiet: VecDeque<(i64, u32)>,
    /// What silence has earned on the last day on which it did.
    earned: (i64, i64),
}

impl Default for Score {
    fn default() -> Self {
        let tenths = Trust::default().score * TENTH;
        Self { tenths, surprises: VecDeque::new(), quiet: VecDeque::new(), earned: (0, 0) }
    }
}

impl Score {
    /// Hours of which nothing was said for long enough earn what they may.
    fn mature(&mut self, now: Timestamp) {
        while let Some((hour, calls)) = self.quiet.front().copied() {
            let due = (hour + 1) * HOUR + SILENCE;
            if due > now.as_millis() {
                return;
            }
            self.quiet.pop_front();
            let day = due.div_euclid(DAY);
            let before = if self.earned.0 == day { self.earned.1 } else { 0 };
            let gain = (QUIET * i64::from(calls)).min(QUIET_A_DAY - before);
            self.earned = (day, before + gain);
            self.add(gain);
        }
    }

    fn add(&mut self, tenths: i64) {
        self.tenths = (self.tenths + tenths).clamp(0, MOST);
    }

    /// Something went wrong.
    pub(super) fn spend(&mut self, kind: Surprise, call: Option<CallId>, at: Timestamp) -> bool {
        self.mature(at);
        let same = |s: &&Surprised| s.kind == Surprise::NearMiss && at.since(s.at) < NEAR_MISSES_APART;
        if kind == Surprise::NearMiss && self.surprises.iter().rev().any(|s| same(&s)) {
            return false;
        }
        self.add(-kind.points() * TENTH);
        self.surprises.push_back(Surprised { kind, at, call });
        self.forget(at);
        true
    }

    /// Something went well.
    pub(super) fn earn(&mut self, what: Earned, at: Timestamp) {
        self.mature(at);
        self.add(match what {
            Earned::Approved => TENTH / 2,
            Earned::JudgedGood => TENTH,
        });
    }

    /// A call was executed: it earns something unless somebody complains.
    pub(super) fn executed(&mut self, at: Timestamp) {
        self.mature(at);
        let this = at.as_millis().div_euclid(HOUR);
        match self.quiet.back_mut() {
            Some((hour, calls)) if *hour == this => *calls += 1,
            _ => self.quiet.push_back((this, 1)),
        }
    }

    /// Somebody has complained of a call that was executed then: it earns nothing.
    pub(super) fn complained(&mut self, executed: Timestamp) {
        let then = executed.as_millis().div_euclid(HOUR);
        self.quiet.iter_mut().filter(|(hour, _)| *hour == then).for_each(|(_, calls)| *calls = calls.saturating_sub(1));
        self.quiet.retain(|(_, calls)| *calls > 0);
    }

    fn forget(&mut self, now: Timestamp) {
        self.surprises.retain(|s| now.since(s.at) < WEEK);
        while self.surprises.len() > KEPT {
            self.surprises.pop_front();
        }
    }

    /// How it stands, and the surprises of seven days, the newest first.
    pub(super) fn told(&self, now: Timestamp) -> (Trust, Vec<Surprised>) {
        let mut then = self.clone();
        then.mature(now);
        then.forget(now);
        let surprises_7d = i64::try_from(then.surprises.len()).unwrap_or(i64::MAX);
        (Trust { score: then.tenths / TENTH, surprises_7d }, then.surprises.into_iter().rev().collect())
    }

    /// Whether it says no more than that nothing is known.
    pub(super) fn is_new(&mut self, now: Timestamp) -> bool {
        self.mature(now);
        self.forget(now);
        self.surprises.is_empty() && self.quiet.is_empty() && self.tenths == Self::default().tenths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{MINUTE, START};

    fn score(score: &Score, now: Timestamp) -> i64 {
        score.told(now).0.score
    }

    fn days(n: u32) -> Duration {
        Duration::from_secs(86_400) * n
    }

    #[test]
    fn surprises_spend_what_the_table_says_and_never_more_than_there_is() {
        for (kind, left) in Surprise::ALL.into_iter().zip([35, 38, 42, 44, 46]) {
            let mut trust = Score::default();
            assert!(trust.spend(kind, None, START));
            assert_eq!(score(&trust, START), left, "{kind:?}");
        }
        let mut trust = Score::default();
        (0..10).for_each(|_| assert!(trust.spend(Surprise::Undone, None, START)));
        let (told, all) = trust.told(START);
        assert_eq!((told.score, told.surprises_7d, all.len()), (0, 10, 10));
        assert_eq!(trust.told(START.plus(days(7))).0.surprises_7d, 0, "a week is over");
    }

    #[test]
    fn one_near_miss_that_is_tried_again_and_again_is_one_surprise() {
        let mut trust = Score::default();
        assert!(trust.spend(Surprise::NearMiss, None, START));
        assert!(!trust.spend(Surprise::NearMiss, None, START.plus(MINUTE * 9)));
        assert!(trust.spend(Surprise::Rejected, None, START.plus(MINUTE * 9)));
        assert!(!trust.spend(Surprise::NearMiss, None, START.plus(MINUTE * 9)));
        assert!(trust.spend(Surprise::NearMiss, None, START.plus(MINUTE * 10)));
        assert_eq!(score(&trust, START.plus(MINUTE * 10)), 50 - 6 - 8 - 6);
    }

    #[test]
    fn silence_earns_a_little_a_day_later_and_not_more_than_four_points_a_day() {
        let mut trust = Score::default();
        (0..5).for_each(|_| trust.executed(START));
        assert_eq!(score(&trust, START.plus(days(1))), 50, "not before its hour is over, too");
        assert_eq!(score(&trust, START.plus(days(1) + MINUTE * 60)), 51);
        (0..1000).for_each(|_| trust.executed(START.plus(MINUTE * 60)));
        let later = START.plus(days(2));
        assert_eq!(score(&trust, later), 54, "four points in a day");
        trust.earn(Earned::Approved, later);
        trust.earn(Earned::Approved, later);
        trust.earn(Earned::JudgedGood, later);
        assert_eq!(score(&trust, later), 56);
        (0..1000).for_each(|_| trust.earn(Earned::JudgedGood, later));
        assert_eq!(score(&trust, later), 100);
    }

    #[test]
    fn what_somebody_complains_of_earns_nothing() {
        let mut trust = Score::default();
        (0..5).for_each(|_| trust.executed(START));
        trust.complained(START);
        assert_eq!(score(&trust, START.plus(days(2))), 50, "four calls are 0.8");
        trust.executed(START.plus(MINUTE * 60));
        assert_eq!(score(&trust, START.plus(days(2))), 51);
    }

    #[test]
    fn asking_for_it_changes_nothing() {
        let (mut asked, mut silent) = (Score::default(), Score::default());
        for n in 0..200_u32 {
            let at = START.plus(MINUTE * 37 * n);
            for trust in [&mut asked, &mut silent] {
                trust.executed(at);
                if n % 9 == 0 {
                    trust.spend(Surprise::Rejected, None, at);
                }
            }
            let _ = asked.told(at.plus(MINUTE * 5));
        }
        assert_eq!(asked, silent);
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Score>(&text).unwrap(), asked);
    }
}
