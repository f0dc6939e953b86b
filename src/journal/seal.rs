//! Sealing of payloads: AES-256-GCM with a random nonce, bound to the digest of what is inside.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use bytes::Bytes;

use crate::call::Digest;

use super::frame::PayloadMeta;

const NONCE: usize = 12;

/// A payload ready for the journal.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// What the chained part says about it.
    pub meta: PayloadMeta,
    pub(super) bytes: Vec<u8>,
    pub(super) plain: Bytes,
}

/// Seals and unseals with one key.
pub struct Sealer {
    key: RandomizedNonceKey,
    id: Digest,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.id)
    }
}

/// The bytes could not be sealed, or are not what was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload cannot be sealed or unsealed")]
pub struct SealError;

impl Sealer {
    /// # Errors
    /// When the cipher cannot be set up.
    pub fn new(key: &[u8; 32]) -> Result<Self, SealError> {
        let mut named = b"holdpoint payload key".to_vec();
        named.extend_from_slice(key);
        let id = Digest::of(&named);
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError)?;
        Ok(Self { key, id })
    }

    /// Names the key without telling it.
    #[must_use]
    pub fn key_id(&self) -> Digest {
        self.id
    }

    /// Seals one payload.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(&self, plain: impl Into<Bytes>) -> Result<Sealed, SealError> {
        let plain: Bytes = plain.into();
        let digest = Digest::of(&plain);
        let mut bytes = Vec::with_capacity(NONCE + plain.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(&[0; NONCE]);
        bytes.extend_from_slice(&plain);
        let (place, body) = bytes.split_at_mut(NONCE);
        let (nonce, tag) = self.key.seal_in_place_separate_tag(aad(&digest), body).map_err(|_| SealError)?;
        place.copy_from_slice(nonce.as_ref());
        bytes.extend_from_slice(tag.as_ref());
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let meta =
            PayloadMeta { digest, len: size(plain.len()), sealed: Digest::of(&bytes), sealed_len: size(bytes.len()) };
        Ok(Sealed { meta, bytes, plain })
    }

    /// Opens sealed bytes that must be the ones with this digest.
    ///
    /// # Errors
    /// When key, digest or bytes do not match.
    pub fn unseal(&self, sealed: &[u8], digest: &Digest) -> Result<Bytes, SealError> {
        let (nonce, body) = sealed.split_at_checked(NONCE).ok_or(SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(nonce, aad(digest), &mut body).map_err(|_| SealError)?;
        let len = plain.len();
        body.truncate(len);
        if Digest::of(&body) == *digest { Ok(Bytes::from(body)) } else { Err(SealError) }
    }
}

const PURPOSE: &[u8; 19] = b"holdpoint payload 1";

fn aad(digest: &Digest) -> Aad<[u8; PURPOSE.len() + 32]> {
    let mut data = [0; PURPOSE.len() + 32];
    let (purpose, of) = data.split_at_mut(PURPOSE.len());
    purpose.copy_from_slice(PURPOSE);
    of.copy_from_slice(digest.as_bytes());
    Aad::from(data)
}

/// Reads the key file, or makes one (mode 0600, durable before it is used).
///
/// # Errors
/// When the file cannot be read or made, or does not hold exactly 32 bytes.
pub fn key_file(path: &Path) -> io::Result<[u8; 32]> {
    match File::open(path) {
        Ok(mut file) => {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            text.try_into().map_err(|_| io::Error::other("the key file does not hold exactly 32 bytes"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => make_key(path),
        Err(e) => Err(e),
    }
}

fn make_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("no randomness"))?;
    replace_file(path, &key)?;
    Ok(key)
}

/// Puts a private file in the place of another one, whole and durable or not at all.
///
/// # Errors
/// When the file system says no.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_digest() {
        let sealer = Sealer::new(&[1; 32]).unwrap();
        let sealed = sealer.seal(&b"4111 1111"[..]).unwrap();
        assert!(!sealed.bytes.windows(4).any(|w| w == b"4111"));
        assert_eq!(sealer.unseal(&sealed.bytes, &sealed.meta.digest).unwrap(), "4111 1111");
        assert!(sealer.unseal(&sealed.bytes, &Digest::of(b"other")).is_err());
        assert!(Sealer::new(&[2; 32]).unwrap().unseal(&sealed.bytes, &sealed.meta.digest).is_err());
    }

    #[test]
    fn a_made_key_is_read_back_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("payload.key");
        let key = key_file(&path).unwrap();
        assert_eq!(key_file(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
