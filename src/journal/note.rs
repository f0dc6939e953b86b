//! Signed notes and log checkpoints (C2SP `signed-note` and `tlog-checkpoint`), ed25519.
//!
//! ```text
//! holdpoint.dev/log/9f2c41d07a5b3e60
//! 1042
//! 4n7Zb0mX…=
//! chain sha256:71c2…
//!
//! — holdpoint.dev/log/9f2c41d07a5b3e60 nyxB0HBz…
//! ```
//! The lines are: origin, how many records, root of the tree over them, and as an extension the chain hash of the
//! last of them, which a start compares without reading all that came before.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::call::Digest;

/// The algorithm byte of ed25519 in key ids and keys.
const ALGORITHM: u8 = 1;
const CHAIN: &str = "chain ";

/// What is wrong with a note, a checkpoint or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text is not of the form.
    #[error("{0}")]
    Malformed(&'static str),
    /// No signature is by this key.
    #[error("it is not signed by the key `{0}`")]
    OtherKey(String),
    /// The signature does not fit the text.
    #[error("its signature is wrong: the text was changed after it was signed")]
    Forged,
}

use NoteError::Malformed;

fn key_id(name: &str, public: &[u8]) -> [u8; 4] {
    let mut named = name.as_bytes().to_vec();
    named.extend_from_slice(&[b'\n', ALGORITHM]);
    named.extend_from_slice(public);
    let [a, b, c, d, ..] = *Digest::of(&named).as_bytes();
    [a, b, c, d]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The key that signs checkpoints.
pub struct Signer {
    pair: Ed25519KeyPair,
    verifier: Verifier,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.verifier)
    }
}

impl Signer {
    /// From the 32 bytes of a private key. The log's origin is named after the public one.
    ///
    /// # Errors
    /// When the bytes are no key.
    pub fn new(seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Malformed("not an ed25519 key"))?;
        let public = pair.public_key().as_ref().to_vec();
        let short = Digest::of(&public).as_bytes().first_chunk::<8>().map(|b| hex(b)).unwrap_or_default();
        let verifier = Verifier { name: format!("holdpoint.dev/log/{short}"), public };
        Ok(Self { pair, verifier })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Signs a checkpoint of this log.
    #[must_use]
    pub fn sign(&self, size: u64, root: Digest, chain: Digest) -> String {
        let name = &self.verifier.name;
        let text = format!("{name}\n{size}\n{}\n{CHAIN}{chain}\n", BASE64.encode(root.as_bytes()));
        let mut signature = key_id(name, &self.verifier.public).to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n\u{2014} {name} {}\n", BASE64.encode(signature))
    }
}

/// A public key that checks signatures; in text `<name>+<key id>+<key>`, a C2SP vkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    public: Vec<u8>,
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ALGORITHM];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex(&key_id(&self.name, &self.public)), BASE64.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let wrong = Malformed("a key reads `<name>+<8 hex digits>+<base64>`");
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong) };
        let key = BASE64.decode(key).map_err(|_| wrong.clone())?;
        let Some((&ALGORITHM, public)) = key.split_first() else { return Err(Malformed("not an ed25519 key")) };
        if public.len() != 32 || hex(&key_id(name, public)) != id {
            return Err(Malformed("the key does not fit its id"));
        }
        Ok(Self { name: name.to_owned(), public: public.to_vec() })
    }
}

/// The text of a note that must be signed by this key. Signatures by others (witnesses) are passed over.
fn opened<'a>(note: &'a str, key: &Verifier) -> Result<&'a str, NoteError> {
    let cut = note.rfind("\n\n").ok_or(Malformed("a signed note has an empty line before its signatures"))?;
    let (text, signatures) = note.split_at_checked(cut + 1).ok_or(Malformed("not a note"))?;
    let id = key_id(&key.name, &key.public);
    let ours = signatures.lines().filter_map(|line| {
        let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let bytes = BASE64.decode(signature).ok().filter(|_| name == key.name)?;
        bytes.strip_prefix(&id).map(<[u8]>::to_vec)
    });
    let public = UnparsedPublicKey::new(&ED25519, &key.public);
    let checked: Vec<bool> = ours.map(|s| public.verify(text.as_bytes(), &s).is_ok()).collect();
    match checked.as_slice() {
        [] => Err(NoteError::OtherKey(key.name.clone())),
        all if all.iter().all(|ok| *ok) => Ok(text),
        _ => Err(NoteError::Forged),
    }
}

/// A checkpoint whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many records it covers.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// Chain hash of the last one.
    pub chain: Digest,
}

impl Checkpoint {
    /// Reads a checkpoint that must be signed by this key. Signatures by others (witnesses) are passed over.
    ///
    /// # Errors
    /// When it is malformed, not signed by the key, or was changed.
    pub fn verified(note: &str, key: &Verifier) -> Result<Self, NoteError> {
        Self::read(opened(note, key)?, &key.name)
    }

    fn read(text: &str, origin: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        if lines.next() != Some(origin) {
            return Err(Malformed("it is a checkpoint of another log"));
        }
        let size = lines.next().and_then(|l| l.parse().ok()).ok_or(Malformed("its second line is no size"))?;
        let root = lines.next().and_then(|l| BASE64.decode(l).ok()).and_then(|b| <[u8; 32]>::try_from(b).ok());
        let root = Digest::from_bytes(root.ok_or(Malformed("its third line is no root hash"))?);
        let chain = lines.find_map(|l| l.strip_prefix(CHAIN)).and_then(|d| d.parse().ok());
        Ok(Self { size, root, chain: chain.ok_or(Malformed("it names no chain hash"))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&[7; 32]).unwrap()
    }

    #[test]
    fn a_checkpoint_reads_back_and_every_changed_byte_is_found() {
        let signer = signer();
        let note = signer.sign(42, Digest::of(b"root"), Digest::of(b"chain"));
        let read = Checkpoint::verified(&note, signer.verifier()).unwrap();
        assert_eq!(read, Checkpoint { size: 42, root: Digest::of(b"root"), chain: Digest::of(b"chain") });
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_ne!(Checkpoint::verified(&changed, signer.verifier()).ok(), Some(read.clone()), "byte {at}");
        }
    }

    #[test]
    fn another_key_is_not_believed_and_witnesses_are_passed_over() {
        let (ours, other) = (signer(), Signer::new(&[8; 32]).unwrap());
        let note = ours.sign(1, Digest::of(b"r"), Digest::of(b"c"));
        assert!(matches!(Checkpoint::verified(&note, other.verifier()), Err(NoteError::OtherKey(_))));
        let witnessed = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert_eq!(Checkpoint::verified(&witnessed, ours.verifier()).unwrap().size, 1);
    }

    #[test]
    fn a_key_in_text_reads_back_and_a_wrong_one_does_not() {
        let key = signer().verifier().clone();
        assert_eq!(key.to_string().parse::<Verifier>().unwrap(), key);
        assert!(key.to_string().replace('+', "-").parse::<Verifier>().is_err());
        assert!(format!("x{key}").parse::<Verifier>().is_err());
    }

    /// The example of the Go implementation (`golang.org/x/mod/sumdb/note`).
    #[test]
    fn a_note_that_another_implementation_signed_is_opened() {
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann \
             x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        let verifier: Verifier = key.parse().unwrap();
        assert_eq!(verifier.to_string(), key);
        assert_eq!(opened(&note, &verifier), Ok(text));
        assert_eq!(opened(&note.replace("problem is", "solution is"), &verifier), Err(NoteError::Forged));
    }
}
