//! Evidence that a person brings: in words, or as a file, which nobody here opens.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, IF_MATCH};
use multer::Multipart;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{ArtifactId, Digest, MAX_EVIDENCE, is_hidden};
use crate::store::{CallRecord, HoldError, NewArtifact, State as CallState, is_kind};
use crate::wire;

use super::Desk;
use super::api::{self, Asked};
use super::decide::Decision;
use super::edge::{self, BODY};
use super::filled::own_form;
use super::page::{self, Visit, Wrong};
use super::problem::Problem;
use super::who::{Visitor, Who};

/// A kind of evidence.
pub(super) const KIND: &str = r"^[A-Za-z0-9_-]{1,64}$";
/// Longest title of a piece of evidence, in characters.
const TITLE: usize = 200;
/// Longest file, in bytes.
const FILE: usize = 1 << 20;
/// Endings that a file keeps when it is taken away again: what they stand for runs nowhere by itself.
const ENDINGS: [&str; 11] = ["csv", "gif", "jpeg", "jpg", "json", "log", "md", "pdf", "png", "txt", "webp"];

/// What a person brings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bring {
    #[schemars(pattern(KIND))]
    kind: String,
    /// The kind by default.
    #[serde(default)]
    #[schemars(length(max = TITLE))]
    title: Option<String>,
    /// Either this.
    #[serde(default)]
    text: Option<String>,
    /// Or where it is. It is not fetched.
    #[serde(default)]
    url: Option<String>,
}

/// The same as `multipart/form-data`, perhaps with a file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive that makes a schema of it")]
pub(super) struct BringFile {
    #[schemars(pattern(KIND))]
    kind: String,
    /// The file's name by default, or the kind.
    #[serde(default)]
    #[schemars(length(max = TITLE))]
    title: String,
    /// Either this.
    #[serde(default)]
    text: String,
    /// Or where it is. It is not fetched.
    #[serde(default)]
    url: String,
    /// Or a file of at most 1 MiB.
    #[serde(default)]
    #[schemars(extend("format" = "binary"))]
    file: String,
}

/// A file as a form carries it.
#[derive(Debug)]
struct File {
    name: Option<String>,
    content: Bytes,
}

/// Longest body of a request that says this of itself.
pub(super) fn most(headers: &HeaderMap, path: &str) -> usize {
    if boundary(headers).is_some() { FILE + BODY } else { edge::room(path) }
}

/// What stands in a form, whatever its frame is; nothing when it is none.
pub(super) fn framed(headers: &HeaderMap, body: &[u8]) -> Option<Digest> {
    let frame = format!("--{}", boundary(headers)?);
    let (mut parts, mut rest) = (Vec::new(), body);
    while let Some(at) = rest.windows(frame.len()).position(|w| w == frame.as_bytes()) {
        let (part, after) = rest.split_at(at);
        parts.push(Digest::of(part));
        rest = after.get(frame.len()..).unwrap_or_default();
    }
    parts.push(Digest::of(rest));
    Some(Digest::of_json(&json!(parts)))
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    multer::parse_boundary(headers.get(CONTENT_TYPE)?.to_str().ok()?).ok()
}

/// The fields of a form, and its file. What is left empty is not given.
async fn parts(boundary: String, body: Bytes) -> Result<(Map<String, Value>, Option<File>), Problem> {
    let misread = |e: multer::Error| Problem::malformed(format!("the form cannot be read: {e}"));
    let mut form = Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), boundary);
    let (mut fields, mut file) = (Map::new(), None);
    while let Some(field) = form.next_field().await.map_err(misread)? {
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().map(str::to_owned).filter(|n| !n.is_empty());
        let content = field.bytes().await.map_err(misread)?;
        let twice = fields.contains_key(&name) || (name == "file" && file.is_some());
        if twice {
            return Err(Problem::malformed("a field of the form stands twice"));
        }
        if name == "file" {
            file = (file_name.is_some() || !content.is_empty()).then_some(File { name: file_name, content });
        } else if !content.is_empty() {
            let text = std::str::from_utf8(&content).map_err(|_| Problem::malformed("the form is not UTF-8"))?;
            fields.insert(name, text.into());
        }
    }
    Ok((fields, file))
}

async fn multipart(boundary: String, body: axum::body::Body) -> Result<(Map<String, Value>, Option<File>), Problem> {
    parts(boundary, wire::body::read(body, FILE + BODY).await?).await
}

/// What a request says that brings evidence.
#[derive(Debug)]
pub(super) struct Brought {
    said: Bring,
    file: Option<File>,
}

/// A piece of evidence to keep.
struct Piece {
    kind: String,
    title: String,
    content: Bytes,
}

impl Brought {
    fn read((fields, file): (Map<String, Value>, Option<File>)) -> Result<Self, Problem> {
        let said = serde_json::from_value(Value::Object(fields)).map_err(|e| Problem::invalid(e.to_string()))?;
        Ok(Self { said, file })
    }

    fn piece(self) -> Result<Piece, Problem> {
        let Bring { kind, title, text, url } = self.said;
        if !is_kind(&kind) {
            return Err(Problem::invalid("`kind` is a word such as `ticket`"));
        }
        let title = title.filter(|t| !t.trim().is_empty());
        let title = title.or_else(|| self.file.as_ref()?.title()).unwrap_or_else(|| kind.clone());
        if title.chars().count() > TITLE {
            return Err(Problem::invalid(format!("`title` is over {TITLE} characters")));
        }
        let words = [text, url].map(|text| text.filter(|t| !t.is_empty()).map(Bytes::from));
        let mut given: Vec<Bytes> = words.into_iter().flatten().chain(self.file.map(|f| f.content)).collect();
        match (given.pop(), given.is_empty()) {
            (Some(content), true) if content.is_empty() => Err(Problem::invalid("the file is empty")),
            (Some(content), true) if content.len() > FILE => {
                let text = format!("a file of evidence is at most {FILE} bytes; say where it is instead");
                Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text))
            }
            (Some(content), true) => Ok(Piece { kind, title, content }),
            _ => Err(Problem::invalid("give exactly one of `text`, `url` and (in a form) `file`")),
        }
    }
}

impl File {
    /// Its name, without where it was.
    fn title(&self) -> Option<String> {
        let name = self.name.as_deref()?.rsplit(['/', '\\']).next()?.trim();
        let good = !name.is_empty() && name.chars().count() <= TITLE && !name.chars().any(is_hidden);
        good.then(|| name.to_owned())
    }
}

/// Evidence that is sent to the API.
pub(super) struct PostedEvidence {
    pub(super) asked: Asked,
    pub(super) brought: Brought,
    /// `If-Match`, where given.
    pub(super) version: Option<u64>,
}

impl FromRequest<Arc<Desk>> for PostedEvidence {
    type Rejection = Problem;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let who = Who::from_request_parts(&mut parts, desk).await?;
        let brought = match boundary(&parts.headers) {
            Some(boundary) => Brought::read(multipart(boundary, body).await?)?,
            None => Brought { said: edge::json(&parts.headers, body, BODY).await?, file: None },
        };
        let version = api::version(&parts.headers, IF_MATCH)?;
        Ok(Self { asked: Asked::new(Arc::clone(desk), who), brought, version })
    }
}

/// Evidence that is sent by a form of this session's pages.
pub(super) struct FilledEvidence {
    pub(super) visit: Visit,
    pub(super) brought: Brought,
}

impl FromRequest<Arc<Desk>> for FilledEvidence {
    type Rejection = Response;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, desk).await?;
        let read = async {
            edge::same_origin(&parts.headers)?;
            let (mut fields, file) = match boundary(&parts.headers) {
                Some(boundary) => multipart(boundary, body).await?,
                None => (edge::form(&parts.headers, body).await?, None),
            };
            own_form(&visitor, &parts.headers, fields.remove("csrf"))?;
            Brought::read((fields, file))
        };
        match read.await {
            Ok(brought) => Ok(Self { visit: Visit::new(Arc::clone(desk), visitor), brought }),
            Err(problem) => Err(Wrong::from(problem).into_response()),
        }
    }
}

impl Decision<'_> {
    pub(super) async fn bring(&self, brought: Brought) -> Result<CallRecord, Problem> {
        let done = self.try_bring(brought).await;
        self.noted("hold.comment", done).await
    }

    /// Evidence that a person brings stands beside the agent's, and is verified by nobody.
    async fn try_bring(&self, brought: Brought) -> Result<CallRecord, Problem> {
        let Piece { kind, title, content } = brought.piece()?;
        self.asker().permit("hold.comment", self.record)?;
        self.is_version()?;
        // What is refused leaves nothing in the journal.
        match self.record.state_at(self.admin.clock.now()) {
            CallState::Held => {}
            CallState::Expired => return Err(self.problem(HoldError::Expired(Box::new(self.record.clone())))),
            _ => return Err(self.problem(HoldError::AlreadyDecided(Box::new(self.record.clone())))),
        }
        if self.record.evidence.len() >= MAX_EVIDENCE {
            return Err(self.problem(HoldError::Full));
        }
        let (id, by) = (ArtifactId::new(), format!("reviewer {}", self.who.person));
        let artifact = NewArtifact { id, kind, title, by, principal_key: self.record.principal.key(), content };
        self.admin.store.put_artifact(artifact).await?;
        self.admin.store.attach_evidence(self.record.id, id).await.map_err(|e| self.problem(e))
    }
}

/// The name under which a piece is taken away.
fn saved_as(id: ArtifactId, title: &str) -> String {
    let ending = title.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let ending = ending.filter(|e| ENDINGS.contains(&e.as_str()));
    format!("{id}.{}", ending.as_deref().unwrap_or("bin"))
}

/// One piece as it was brought: a file to keep, never a page of ours.
pub(super) async fn taken_away(
    State(desk): State<Arc<Desk>>,
    visitor: Visitor,
    Path((id, piece)): Path<(String, String)>,
) -> page::Answer {
    let visit = Visit::new(desk, visitor);
    let record = match visit.hold(&id).await {
        Ok(record) => record,
        // Who sees calls, sees what came with them.
        Err(_) => visit.call(&id).await?,
    };
    let evidence = record.evidence.iter().find(|e| e.id.to_string() == piece);
    let evidence = evidence.filter(|_| visit.asker().may("artifact.view", &record)).ok_or_else(Problem::not_found)?;
    let (_, content) = visit.desk.store.artifact(evidence.id).await?.ok_or_else(Problem::not_found)?;
    let name = format!("attachment; filename=\"{}\"", saved_as(evidence.id, &evidence.title));
    Ok(([(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, name)], content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &[u8]) -> Result<Brought, Problem> {
        let read = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = Bytes::from(String::from_utf8_lossy(body).replace('\n', "\r\n"));
        read.block_on(parts("x".to_owned(), body)).and_then(Brought::read)
    }

    fn part(name: &str, content: &str) -> String {
        format!("--x\nContent-Disposition: form-data; name={name}\n\n{content}\n")
    }

    fn piece(all: &[String]) -> Result<(String, String, Bytes), String> {
        let piece = form(format!("{}--x--\n", all.concat()).as_bytes()).and_then(Brought::piece);
        piece.map(|p| (p.kind, p.title, p.content)).map_err(|p| format!("{} {}", p.code(), p.detail()))
    }

    #[test]
    fn a_form_brings_words_or_one_file() {
        let kind = part("\"kind\"", "scan");
        let file = |name: &str| part(&format!("\"file\"; filename=\"{name}\""), "bytes");
        let bytes = Bytes::from_static(b"bytes");
        let none = part("\"file\"; filename=\"\"", "");
        let words = [kind.clone(), part("\"text\"", "bytes"), none.clone()];
        assert_eq!(piece(&words), Ok(("scan".into(), "scan".into(), bytes.clone())), "no file was chosen");
        for (name, title) in
            [("C:\\\\a\\\\b.pdf", "b.pdf"), ("../../etc/passwd", "passwd"), ("a\u{202e}fdp.exe", "scan")]
        {
            assert_eq!(piece(&[kind.clone(), file(name)]).unwrap().1, title, "{name}");
        }
        let titled = [kind.clone(), part("\"title\"", "T-1"), file("b.pdf")];
        assert_eq!(piece(&titled), Ok(("scan".into(), "T-1".into(), bytes)));
        for (wrong, code) in [
            (vec![kind.clone()], "invalid_arguments give exactly one"),
            (vec![kind.clone(), none], "invalid_arguments give exactly one"),
            (vec![kind.clone(), part("\"text\"", "a"), file("b")], "invalid_arguments give exactly one"),
            (vec![kind.clone(), part("\"file\"; filename=\"a\"", "")], "invalid_arguments the file is empty"),
            (vec![kind.clone(), file("a"), file("b")], "malformed_request a field of the form stands twice"),
            (vec![kind.clone(), kind.clone(), file("b")], "malformed_request a field of the form stands twice"),
            (vec![kind.clone(), part("\"more\"", "a"), file("b")], "invalid_arguments unknown field"),
            (vec![file("b")], "invalid_arguments missing field"),
        ] {
            let refused = piece(&wrong).unwrap_err();
            assert!(refused.starts_with(code), "{refused}, not {code}");
        }
        assert_eq!(form(b"--x\nbroken").unwrap_err().code(), "malformed_request");
        let large = part("\"file\"; filename=\"a\"", &"a".repeat(FILE + 1));
        assert!(piece(&[kind.clone(), large]).unwrap_err().starts_with("body_too_large"));
        assert!(piece(&[kind, part("\"file\"; filename=\"a\"", &"a".repeat(FILE))]).is_ok());
    }

    #[test]
    fn a_file_is_taken_away_under_a_name_that_runs_nowhere() {
        let id = ArtifactId::new();
        let ends = |title: &str| saved_as(id, title).trim_start_matches(&id.to_string()).to_owned();
        assert_eq!(
            (ends("scan.PDF"), ends("a.pdf.exe"), ends("x\"; a=.html"), ends("pdf")),
            (".pdf".into(), ".bin".into(), ".bin".into(), ".bin".into())
        );
    }
}
