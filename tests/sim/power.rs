//! Power cuts: a process works on a store under `strace`, the disk is computed as it may be after a cut at some instant,
//! and the store opened on it must have everything that was acknowledged before.
//!
//! `HOLDPOINT_POWER_INSTANTS=n` tries so many instants instead of 25, each with four kinds of luck;
//! `HOLDPOINT_POWER_SEED=n` is the seed of work and cuts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use holdpoint::call::CallId;
use holdpoint::clock::ManualClock;
use holdpoint::store::{Filter, Options, Store};

use crate::disk::{Disk, Luck, Op, parse};
use crate::model::{DAY, Ms};
use crate::world::{Dice, Place, START, World, scratch, see, time};

const STEPS: usize = 500;

fn options() -> Options {
    Options { segment_bytes: 100_000, preallocate: 16_384, ..Options::default() }
}

/// Runs in a process of its own. Says after each step how each call that changed stands now.
#[test]
#[ignore = "the work that the power cuts interrupt; it is started by them"]
fn work() {
    let Some(dir) = std::env::var_os("HOLDPOINT_POWER_DIR").map(PathBuf::from) else { return };
    let seed = crate::wanted("HOLDPOINT_POWER_SEED").unwrap_or(1);
    let mut acks = std::fs::File::create(dir.join("acks")).unwrap();
    // The store makes its own directory.
    let mut place = Place::at(&dir.join("root/state"), options());
    let mut world = World::new(&mut place, seed, true);
    let mut told: BTreeMap<u128, (u64, &str)> = BTreeMap::new();
    for n in 1..=STEPS {
        world.step();
        let mut line = format!("step {n} {}", world.model().high);
        for call in &world.model().calls {
            let now = (call.version, call.state.name());
            if told.insert(call.id, now) != Some(now) {
                line += &format!(" {},{},{}", call.id, now.0, now.1);
            }
        }
        acks.write_all(format!("{line}\n").as_bytes()).unwrap();
        if n % 190 == 0 {
            world.place().block(world.place().store().checkpoint()).unwrap();
        }
        if n % 70 == 0 {
            let end = world.clock() - 2 * DAY;
            acks.write_all(format!("forgets {end}\n").as_bytes()).unwrap();
            world.shorten();
        }
    }
}

/// What was acknowledged before the cut.
#[derive(Debug, Default)]
struct Told {
    high: Ms,
    calls: BTreeMap<u128, (u64, String)>,
    forgets: Ms,
}

fn told(bytes: &[u8]) -> Told {
    let mut all = Told { high: START, ..Told::default() };
    for line in std::str::from_utf8(bytes).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "forgets" {
            all.forgets = all.forgets.max(words[1].parse().unwrap());
            continue;
        }
        all.high = words[2].parse().unwrap();
        for word in &words[3..] {
            let parts: Vec<&str> = word.split(',').collect();
            all.calls.insert(parts[0].parse().unwrap(), (parts[1].parse().unwrap(), parts[2].to_owned()));
        }
    }
    all
}

fn open(dir: &Path, at: Ms, first: bool) -> Vec<(u128, u64, &'static str)> {
    let clock = Arc::new(ManualClock::at(time(at)));
    let (store, recovery) = Store::open(dir, clock, options()).unwrap_or_else(|e| panic!("it does not open: {e}"));
    assert_eq!(recovery.rollback, None, "I14: a false alarm");
    assert_eq!(recovery.records_lost, 0, "durable records are gone");
    assert!(!recovery.ledgers_corrected, "I10: the ledgers did not match");
    if !first {
        assert!(recovery.to_unknown.is_empty() && !recovery.audit_gap, "I22: {recovery:?}");
        // The index may be lost at any time: sled does not keep all that it was given after some cuts.
        assert_eq!(recovery.torn_bytes, 0, "I22: {recovery:?}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let filter = Filter { limit: 10_000, ..Filter::default() };
    let mut listed = runtime.block_on(store.list(filter)).unwrap();
    listed.sort_by_key(|r| r.id);
    for record in &listed {
        // Retention may have taken the payloads of calls that are over; never those of open ones.
        if !record.state.is_final() {
            assert_eq!(runtime.block_on(store.request_body(record)).unwrap(), "request");
        }
        let got = runtime.block_on(store.get(CallId::from_bits(record.id.bits()))).unwrap();
        assert_eq!(got.map(|r| r.id), Some(record.id));
    }
    let shown = listed.iter().map(|r| (r.id.bits(), r.version, see(r).state)).collect();
    drop(store);
    // The hashes that the next checkpoint is signed over are those of the records.
    let report = holdpoint::audit::verify(dir).unwrap_or_else(|e| panic!("the journal does not verify: {e}"));
    let hashes = holdpoint::journal::chain_hashes(&dir.join("journal"), report.last_seq.unwrap()).unwrap();
    holdpoint::journal::verify_with(&dir.join("journal"), |frame| {
        let hash = hashes[usize::try_from(frame.seq - 1).unwrap()];
        assert_eq!(hash, frame.hash, "I14: a wrong hash of record {} would be signed", frame.seq);
    })
    .unwrap();
    shown
}

fn check(disk: &Disk, luck: Luck, dice: &mut Dice) {
    let dir = scratch();
    disk.cut(dir.path(), luck, dice);
    let (told, state) = (told(&disk.told), dir.path().join("state"));
    if let Err(bad) = holdpoint::audit::verify(&state) {
        let torn = match &bad {
            holdpoint::journal::ReadError::Bad(bad) => bad.torn,
            // Nothing was made yet.
            holdpoint::journal::ReadError::Io(_) => told.calls.is_empty(),
        };
        assert!(torn, "the journal does not verify: {bad}");
    }
    let first = open(&state, told.high, true);
    let found: BTreeMap<u128, (u64, &str)> = first.iter().map(|(id, v, s)| (*id, (*v, *s))).collect();
    for (id, (version, state)) in &told.calls {
        let over = !["held", "approved", "dispatching", "unknown"].contains(&state.as_str());
        match found.get(id) {
            // Which ones retention has taken is checked elsewhere.
            None => assert!(over && told.forgets > START + DAY, "I12: call {id} is gone; it was {state}"),
            Some((v, s)) if v == version => {
                // A hold that is over by time shows it.
                let late = *s == "expired" && (state == "held" || state == "approved");
                assert!(*s == state || late, "I13: call {id} is {s}, was {state} in version {version}");
            }
            Some((v, s)) => assert!(v > version && !over, "I4: call {id} was {state} {version}, is {s} {v}"),
        }
    }
    let second = open(&state, told.high, false);
    assert_eq!(
        first.iter().map(|c| (c.0, c.2)).collect::<Vec<_>>(),
        second.iter().map(|c| (c.0, c.2)).collect::<Vec<_>>(),
        "I22"
    );
}

fn record(dir: &Path, seed: u64) -> Option<Vec<Op>> {
    if Command::new("strace").arg("-V").output().is_err() {
        return None;
    }
    std::fs::create_dir(dir.join("root")).unwrap();
    let calls = "openat,open,close,lseek,write,pwrite64,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,\
                 fsync,fdatasync,fcntl,dup,pwritev,writev,copy_file_range,fallocate";
    let trace = dir.join("trace");
    let ran = Command::new("strace")
        .args(["-f", "-xx", "-s", "100000000", "-e", &format!("trace={calls}"), "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "power::work", "--ignored"])
        .env("HOLDPOINT_POWER_DIR", dir)
        .env("HOLDPOINT_POWER_SEED", seed.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    if !ran.status.success() && said.contains("ptrace") {
        println!("{said}");
        return None;
    }
    assert!(ran.status.success(), "the work failed: {said}");
    let text = std::fs::read_to_string(trace).unwrap();
    for call in ["pwritev(", "writev(", "copy_file_range(", "fallocate("] {
        let used = text.lines().any(|l| l.contains(call) && !l.contains("(1<") && !l.contains("(2<"));
        assert!(!used || call == "writev(", "{call} is used, and this replay does not know it");
    }
    Some(parse(&text))
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut() {
    let seed = crate::wanted("HOLDPOINT_POWER_SEED").unwrap_or(1);
    let instants = crate::wanted("HOLDPOINT_POWER_INSTANTS").unwrap_or(25);
    let dir = scratch();
    let Some(ops) = record(dir.path(), seed) else {
        println!("skipped: `strace` is missing or may not trace");
        return;
    };
    let disk = || Disk::new(&dir.path().join("root"), &dir.path().join("acks"));
    let mut trial = disk();
    let touched: Vec<usize> = ops.iter().enumerate().filter(|(_, op)| trial.apply(op)).map(|(n, _)| n).collect();
    let names = |n: &&usize| !matches!(ops[**n], Op::Write { .. } | Op::SyncEnds { .. });
    let special: Vec<usize> = touched.iter().filter(names).copied().collect();
    let mut dice = Dice(seed);
    let mut cuts: Vec<usize> = (0..instants)
        .map(|n| {
            let from = if n % 2 == 0 { &touched } else { &special };
            from[dice.below(from.len())]
        })
        .collect();
    cuts.sort_unstable();
    println!(
        "{} operations, {} of them on files of names and lengths, {} instants",
        touched.len(),
        special.len(),
        instants
    );
    let (mut now, mut done, mut tried) = (disk(), 0, 0);
    for cut in cuts {
        while done <= cut {
            now.apply(&ops[done]);
            done += 1;
        }
        for luck in [Luck::Nothing, Luck::Everything, Luck::Some(512), Luck::Some(4096)] {
            let mut own = Dice(dice.next());
            let tries = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&now, luck, &mut own)));
            if let Err(panic) = tries {
                let what = format!("{:?}", ops[cut]).chars().take(200).collect::<String>();
                println!("the cut after operation {cut} of seed {seed}, luck {luck:?} ({}): {what}", now.pending());
                std::panic::resume_unwind(panic);
            }
            tried += 1;
        }
    }
    println!("{tried} disks, nothing acknowledged was lost");
}
