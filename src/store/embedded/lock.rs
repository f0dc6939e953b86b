//! One process per state directory: a file lock that the kernel frees on any death.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

/// Why the lock was not had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has it; what it says about itself.
    Held(String),
    /// The file system said no.
    Io(io::Error),
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let mut who = String::new();
                let read = file.read_to_string(&mut who);
                Err(LockError::Held(read.map_or_else(|_| String::new(), |_| who.trim().to_owned())))
            }
            Err(TryLockError::Error(e)) => Err(LockError::Io(e)),
        }
    }

    /// Writes who holds it, for the message that a second process prints.
    pub(super) fn sign(&mut self, epoch: u64) -> io::Result<()> {
        self.0.rewind()?;
        self.0.set_len(0)?;
        write!(self.0, "pid {}, epoch {epoch}", std::process::id())
    }
}
