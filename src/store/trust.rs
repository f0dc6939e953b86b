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
/// Of what nothing was heard for so long nothing is known any more.
const FORGOTTEN: Duration = Duration::from_secs(365 * 86_400);
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
    /// When something was heard of it last.
    last: Timestamp,
}

impl Default for Score {
    fn default() -> Self {
        let tenths = Trust::default().score * TENTH;
        Self { tenths, surprises: VecDeque::new(), quiet: VecDeque::new(), earned: (0, 0), last: Timestamp::default() }
    }
}

impl Score {
    /// How many hours of which nothing was said for long enough have earned what they may; what there is then, and what was
    /// earned on the last day.
    fn matured(&self, now: Timestamp) -> (usize, i64, (i64, i64)) {
        let (mut tenths, mut earned) = (self.tenths, self.earned);
        let due = |hour: i64| (hour + 1) * HOUR + SILENCE;
        let ripe = self.quiet.iter().take_while(|(hour, _)| due(*hour) <= now.as_millis());
        let hours = ripe.clone().count();
        for (hour, calls) in ripe {
            let day = due(*hour).div_euclid(DAY);
            let before = if earned.0 == day { earned.1 } else { 0 };
            let gain = (QUIET * i64::from(*calls)).min(QUIET_A_DAY - before);
            (tenths, earned) = ((tenths + gain).min(MOST), (day, before + gain));
        }
        (hours, tenths, earned)
    }

    /// Something is heard at `now`: what silence has earned until then is earned first.
    fn heard(&mut self, now: Timestamp) {
        if self.is_forgotten(now) {
            *self = Self::default();
        }
        let (hours, tenths, earned) = self.matured(now);
        self.quiet.drain(..hours);
        (self.tenths, self.earned, self.last) = (tenths, earned, now);
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        now.since(self.last) >= FORGOTTEN
    }

    fn add(&mut self, tenths: i64) {
        self.tenths = (self.tenths + tenths).clamp(0, MOST);
    }

    /// Something went wrong.
    pub(super) fn spend(&mut self, kind: Surprise, call: Option<CallId>, at: Timestamp) -> bool {
        self.heard(at);
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
        self.heard(at);
        self.add(match what {
            Earned::Approved => TENTH / 2,
            Earned::JudgedGood => TENTH,
        });
    }

    /// A call was executed: it earns something unless somebody complains.
    pub(super) fn executed(&mut self, at: Timestamp) {
        self.heard(at);
        let this = at.as_millis().div_euclid(HOUR);
        match self.quiet.back_mut() {
            Some((hour, calls)) if *hour == this => *calls += 1,
            _ => self.quiet.push_back((this, 1)),
        }
    }

    /// Somebody complains of a call that was executed then: it earns nothing, unless it has already.
    pub(super) fn complained(&mut self, executed: Timestamp, at: Timestamp) {
        self.heard(at);
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

    /// Surprises of seven days, the newest first.
    pub(super) fn surprises(&self, now: Timestamp) -> impl Iterator<Item = &Surprised> {
        self.surprises.iter().rev().take_while(move |s| now.since(s.at) < WEEK)
    }

    /// How it stands.
    pub(super) fn standing(&self, now: Timestamp) -> Trust {
        if self.is_forgotten(now) {
            return Trust::default();
        }
        let surprises_7d = i64::try_from(self.surprises(now).count()).unwrap_or(i64::MAX);
        Trust { score: self.matured(now).1 / TENTH, surprises_7d }
    }

    /// Whether it says no more than that nothing is known, whatever comes: without it everything would be the same.
    pub(super) fn is_nothing(&self, now: Timestamp) -> bool {
        let (hours, tenths, earned) = self.matured(now);
        let idle = hours == self.quiet.len() && earned.0 < now.as_millis().div_euclid(DAY);
        let same = tenths == Self::default().tenths && self.surprises(now).next().is_none();
        self.is_forgotten(now) || (idle && same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{MINUTE, START};

    fn score(score: &Score, now: Timestamp) -> i64 {
        score.standing(now).score
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
        let told = trust.standing(START);
        assert_eq!((told.score, told.surprises_7d, trust.surprises(START).count()), (0, 10, 10));
        assert_eq!(trust.standing(START.plus(days(7))).surprises_7d, 0, "a week is over");
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
        trust.complained(START, START);
        assert_eq!(score(&trust, START.plus(days(2))), 50, "four calls are 0.8");
        trust.executed(START.plus(MINUTE * 60));
        assert_eq!(score(&trust, START.plus(days(2))), 51);
    }

    #[test]
    fn a_complaint_that_comes_late_takes_nothing_back() {
        let mut trust = Score::default();
        (0..5).for_each(|_| trust.executed(START));
        let late = START.plus(days(1) + MINUTE * 120);
        trust.complained(START, late);
        assert_eq!(score(&trust, late), 51);
    }

    #[test]
    fn after_a_year_without_a_word_nothing_is_known_any_more() {
        let mut trust = Score::default();
        trust.spend(Surprise::Undone, None, START);
        let (before, after) = (START.plus(days(364)), START.plus(days(365)));
        assert_eq!((score(&trust, before), trust.is_nothing(before)), (35, false));
        assert_eq!((score(&trust, after), trust.is_nothing(after)), (50, true));
        trust.earn(Earned::JudgedGood, after);
        assert_eq!(score(&trust, after), 51);
    }

    /// What a snapshot leaves out, and when, changes nothing that anybody is told later.
    #[test]
    fn snapshots_at_any_time_change_nothing() {
        for seed in 0..200_u64 {
            let (mut kept, mut live, mut dice) = (Score::default(), Score::default(), seed);
            let mut at = START;
            let mut roll = |n: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % n
            };
            for step in 0..120 {
                at = at.plus(MINUTE * u32::try_from(roll(600)).unwrap());
                let (what, ago) = (roll(8), MINUTE * u32::try_from(roll(3000)).unwrap());
                for trust in [&mut kept, &mut live] {
                    match what {
                        0 => drop(trust.spend(Surprise::NearMiss, None, at)),
                        1 => drop(trust.spend(Surprise::Edited, None, at)),
                        2 => trust.earn(Earned::Approved, at),
                        3 => trust.complained(at.minus(ago), at),
                        _ => trust.executed(at),
                    }
                }
                if roll(3) == 0 {
                    let text = serde_json::to_string(&kept).unwrap();
                    kept = if kept.is_nothing(at) { Score::default() } else { serde_json::from_str(&text).unwrap() };
                }
                let later = at.plus(MINUTE * u32::try_from(roll(5000)).unwrap());
                assert_eq!(kept.standing(later), live.standing(later), "seed {seed}, step {step}");
            }
        }
    }
}
