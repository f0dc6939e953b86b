//! A disk after a power cut, computed from a record of system calls: what was synced is there, of the rest anything may be.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::world::Dice;

/// What a process did to files, in order.
#[derive(Debug, Clone)]
pub enum Op {
    Make(PathBuf),
    Open {
        fd: i64,
        path: PathBuf,
        create: bool,
        truncate: bool,
    },
    Close(i64),
    Seek(i64, u64),
    /// Without an offset where the file stands.
    Write {
        fd: i64,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    Truncate(i64, u64),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    SyncBegins {
        fd: i64,
        key: usize,
    },
    SyncEnds {
        key: usize,
    },
    Duplicate(i64, i64),
}

fn bytes_of(text: &str) -> Vec<u8> {
    let hex = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    text.split("\\x").skip(1).map(|pair| hex(&pair[..2])).collect()
}

/// The strings of a call, decoded, and its other arguments.
fn strings(args: &str) -> Vec<Vec<u8>> {
    args.split('"').skip(1).step_by(2).map(bytes_of).collect()
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes.to_vec()).unwrap())
}

fn number(text: &str) -> i64 {
    text.trim().split([',', ')', ' ', '<']).next().unwrap().parse().unwrap_or(-1)
}

/// The record of `strace -f -xx`, as operations. A write counts from its beginning, a sync from its end.
pub fn parse(text: &str) -> Vec<Op> {
    let mut begun: HashMap<&str, (usize, String)> = HashMap::new();
    let mut ops: Vec<(usize, usize, Op)> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let Some((pid, rest)) = text.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid, (line, start.to_owned()));
        } else if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|r| r.split_once("resumed>")) {
            let Some((start, head)) = begun.remove(pid) else { continue };
            one(&format!("{head}{end}"), start, line, &mut ops);
        } else {
            one(rest, line, line, &mut ops);
        }
    }
    // What was being written at the end.
    ops.sort_by_key(|(at, order, _)| (*at, *order));
    ops.into_iter().map(|(_, _, op)| op).collect()
}

fn one(call: &str, start: usize, end: usize, ops: &mut Vec<(usize, usize, Op)>) {
    let Some((name, rest)) = call.split_once('(') else { return };
    let Some((args, result)) = rest.rsplit_once(" = ") else { return };
    let result = number(result);
    if result < 0 {
        return;
    }
    let (fd, texts) = (number(args), strings(args));
    let plain: Vec<&str> = args.split('"').step_by(2).collect();
    let path = || path_of(&texts[0]);
    let last = || u64::try_from(number(plain[plain.len() - 1].rsplit(", ").next().unwrap())).unwrap_or(0);
    let order = ops.len();
    let mut put = |at: usize, op: Op| ops.push((at, order, op));
    match name {
        "openat" | "open" => put(
            end,
            Op::Open { fd: result, path: path(), create: args.contains("O_CREAT"), truncate: args.contains("O_TRUNC") },
        ),
        "mkdir" | "mkdirat" => put(end, Op::Make(path())),
        "close" => put(start, Op::Close(fd)),
        "lseek" => put(end, Op::Seek(fd, u64::try_from(result).unwrap())),
        "write" | "pwrite64" => {
            let mut bytes = texts[0].clone();
            bytes.truncate(usize::try_from(result).unwrap());
            let at = (name == "pwrite64").then(last);
            put(start, Op::Write { fd, at, bytes });
        }
        "ftruncate" => put(start, Op::Truncate(fd, last())),
        "rename" | "renameat" | "renameat2" => put(start, Op::Rename(path(), path_of(&texts[1]))),
        "unlink" | "unlinkat" => put(start, Op::Unlink(path())),
        "fsync" | "fdatasync" => {
            put(start, Op::SyncBegins { fd, key: order });
            put(end, Op::SyncEnds { key: order });
        }
        "fcntl" if args.contains("F_DUPFD") => put(end, Op::Duplicate(fd, result)),
        "dup" => put(end, Op::Duplicate(fd, result)),
        _ => {}
    }
}

#[derive(Debug, Clone)]
enum Change {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    now: Vec<u8>,
    /// What is on the disk, and what may be.
    synced: Vec<u8>,
    pending: Vec<Change>,
}

fn change(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Bytes(at, bytes) => {
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Length(len) => content.resize(*len, 0),
    }
}

#[derive(Debug, Clone)]
enum Name {
    Put(PathBuf, Option<usize>),
    Gone(PathBuf),
    Moved(PathBuf, PathBuf),
}

impl Name {
    fn dir(&self) -> &Path {
        match self {
            Self::Put(path, _) | Self::Gone(path) | Self::Moved(_, path) => path.parent().unwrap(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Option<usize>>) {
        match self {
            Self::Put(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Gone(path) => drop(names.remove(path)),
            Self::Moved(from, to) => {
                let inside: Vec<PathBuf> = names.keys().filter(|p| p.starts_with(from)).cloned().collect();
                for path in inside {
                    let file = names.remove(&path).unwrap();
                    let rest = path.strip_prefix(from).unwrap();
                    names.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, file);
                }
            }
        }
    }
}

/// What of the unsynced is there after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    Nothing,
    Everything,
    /// Some blocks of this size, and the first few changes of names.
    Some(usize),
}

/// A file, or a directory by its name.
type Node = Result<usize, PathBuf>;

/// Files below `root`, as one process sees them and as the disk has them.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    names: BTreeMap<PathBuf, Option<usize>>,
    synced_names: BTreeMap<PathBuf, Option<usize>>,
    pending_names: Vec<Name>,
    /// An open file or directory, and where it stands.
    open: HashMap<i64, (Node, u64)>,
    /// What is synced, how many changes were there when it began, and the content then.
    syncing: HashMap<usize, (Node, usize, Vec<u8>)>,
    /// What was written to the file of acknowledgements.
    pub told: Vec<u8>,
    acks: PathBuf,
}

const ACKS: usize = usize::MAX;

impl Disk {
    pub fn new(root: &Path, acks: &Path) -> Self {
        let names = BTreeMap::from([(root.to_owned(), None)]);
        Self {
            root: root.to_owned(),
            files: vec![],
            synced_names: names.clone(),
            names,
            pending_names: vec![],
            open: HashMap::new(),
            syncing: HashMap::new(),
            told: vec![],
            acks: acks.to_owned(),
        }
    }

    fn name(&mut self, name: Name) {
        name.apply(&mut self.names);
        self.pending_names.push(name);
    }

    fn dirty(&mut self, file: usize, what: Change) {
        change(&mut self.files[file].now, &what);
        self.files[file].pending.push(what);
    }

    /// Whether the operation touched something under the root.
    pub fn apply(&mut self, op: &Op) -> bool {
        match op {
            Op::Make(path) if path.starts_with(&self.root) => self.name(Name::Put(path.clone(), None)),
            Op::Open { fd, path, .. } if *path == self.acks => drop(self.open.insert(*fd, (Ok(ACKS), 0))),
            Op::Open { fd, path, create, truncate } if path.starts_with(&self.root) => {
                return self.opened(*fd, path, *create, *truncate);
            }
            Op::Open { fd, .. } | Op::Close(fd) => {
                self.open.remove(fd);
                return false;
            }
            Op::Duplicate(from, to) => {
                if let Some(same) = self.open.get(from).cloned() {
                    self.open.insert(*to, same);
                }
                return false;
            }
            Op::Seek(fd, to) => {
                self.open.get_mut(fd).into_iter().for_each(|o| o.1 = *to);
                return false;
            }
            Op::Write { fd, at, bytes } => return self.write(*fd, *at, bytes),
            Op::Truncate(fd, len) => match self.open.get(fd) {
                Some((Ok(file), _)) => self.dirty(*file, Change::Length(usize::try_from(*len).unwrap())),
                _ => return false,
            },
            Op::Rename(from, to) if from.starts_with(&self.root) => self.name(Name::Moved(from.clone(), to.clone())),
            Op::Unlink(path) if self.names.contains_key(path) => self.name(Name::Gone(path.clone())),
            Op::SyncBegins { fd, key } => return self.sync_begins(*fd, *key),
            Op::SyncEnds { key } => return self.sync_ends(*key),
            _ => return false,
        }
        true
    }

    fn opened(&mut self, fd: i64, path: &Path, create: bool, truncate: bool) -> bool {
        let known = self.names.get(path).copied();
        let what = match known {
            Some(None) => Err(path.to_owned()),
            Some(Some(file)) => Ok(file),
            None => {
                assert!(create, "{} is opened and was never made", path.display());
                self.files.push(File::default());
                self.name(Name::Put(path.to_owned(), Some(self.files.len() - 1)));
                Ok(self.files.len() - 1)
            }
        };
        if let (Ok(file), true, true) = (&what, truncate, known.is_some()) {
            self.dirty(*file, Change::Length(0));
        }
        self.open.insert(fd, (what, 0));
        known.is_none() || truncate
    }

    fn write(&mut self, fd: i64, at: Option<u64>, bytes: &[u8]) -> bool {
        let Some((Ok(file), position)) = self.open.get_mut(&fd) else { return false };
        let file = *file;
        let place = at.unwrap_or(*position);
        if at.is_none() {
            *position += bytes.len() as u64;
        }
        if file == ACKS {
            self.told.extend_from_slice(bytes);
            return false;
        }
        self.dirty(file, Change::Bytes(usize::try_from(place).unwrap(), bytes.to_vec()));
        true
    }

    fn sync_begins(&mut self, fd: i64, key: usize) -> bool {
        let Some((what, _)) = self.open.get(&fd).cloned() else { return false };
        let (count, now) = match &what {
            Ok(file) => (self.files[*file].pending.len(), self.files[*file].now.clone()),
            Err(_) => (self.pending_names.len(), vec![]),
        };
        self.syncing.insert(key, (what, count, now));
        false
    }

    fn sync_ends(&mut self, key: usize) -> bool {
        match self.syncing.remove(&key) {
            None => return false,
            Some((Ok(file), count, now)) => {
                let file = &mut self.files[file];
                file.synced = now;
                let count = count.min(file.pending.len());
                file.pending.drain(..count);
            }
            Some((Err(dir), count, _)) => {
                let (mut rest, count) = (Vec::new(), count.min(self.pending_names.len()));
                let later = self.pending_names.split_off(count);
                for name in std::mem::take(&mut self.pending_names) {
                    if name.dir() == dir { name.apply(&mut self.synced_names) } else { rest.push(name) }
                }
                rest.extend(later);
                self.pending_names = rest;
            }
        }
        true
    }

    /// Puts what the disk has after a cut at this moment into `to`, in the place of the root.
    pub fn cut(&self, to: &Path, luck: Luck, dice: &mut Dice) {
        let mut names = self.synced_names.clone();
        let kept = match luck {
            Luck::Nothing => 0,
            Luck::Everything => self.pending_names.len(),
            Luck::Some(_) => dice.below(self.pending_names.len() + 1),
        };
        self.pending_names[..kept].iter().for_each(|n| n.apply(&mut names));
        for (path, file) in &names {
            // Without its directory nobody finds it.
            let up = path.ancestors().skip(1).take_while(|a| a.starts_with(&self.root));
            if !up.into_iter().all(|a| names.contains_key(a)) {
                continue;
            }
            let place = to.join(path.strip_prefix(&self.root).unwrap());
            match file {
                None => std::fs::create_dir_all(&place).unwrap(),
                Some(file) => std::fs::write(&place, self.files[*file].after(luck, dice)).unwrap(),
            }
        }
    }

    /// A line about what is pending, for people.
    pub fn pending(&self) -> String {
        let files: usize = self.files.iter().filter(|f| !f.pending.is_empty()).count();
        format!("{files} files with unsynced bytes, {} unsynced names", self.pending_names.len())
    }
}

impl File {
    fn after(&self, luck: Luck, dice: &mut Dice) -> Vec<u8> {
        let Luck::Some(block) = luck else {
            return if luck == Luck::Everything { self.now.clone() } else { self.synced.clone() };
        };
        let mut content = self.synced.clone();
        for pending in &self.pending {
            match pending {
                Change::Length(_) if dice.one_in(2) => change(&mut content, pending),
                Change::Length(_) => {}
                Change::Bytes(at, bytes) => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let until = bytes.len().min((at + from) / block * block + block - at);
                        if dice.one_in(2) {
                            change(&mut content, &Change::Bytes(at + from, bytes[from..until].to_vec()));
                        }
                        from = until;
                    }
                }
            }
        }
        content
    }
}
