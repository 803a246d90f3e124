//! The routes: who asks, whether that may be answered, and the answer.

use std::{ops::Range, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use serde_json::{Value, json};
use sync_core::model::{Hash, ReplicaId};

use super::{
    ApiError, KeyInfo, NodeApi, ReplicaInfo, TokenAccess, ValueInfo,
    query::{self, decode, encode, locate},
    range::{self, Part},
};
use crate::{
    hub::Hub,
    limits::{MAX_TOKEN_LEN, VALUE_CHUNK},
};

/// The longest key.
const MAX_KEY_LEN: usize = 1024;

/// The REST routes.
pub(crate) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/node", get(node))
        .route("/v1/status", get(status))
        .route("/v1/replicas", get(replicas))
        .route("/v1/replicas/{id}/keys", get(keys))
        .route("/v1/replicas/{id}/values/{*key}", get(value))
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    Unauthorized,
    NotFound,
    Malformed(String),
    Unavailable(&'static str),
    Failed(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "a bearer token of the node's owner is needed (syncline token)".into())
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "there is nothing here".into()),
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, why),
            Self::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_owned()),
            Self::Failed(error) => {
                tracing::error!(%error, "a REST request could not be answered");
                (StatusCode::INTERNAL_SERVER_ERROR, "the node could not answer; its log says why".into())
            }
        };
        let mut response = (status, Json(json!({ "error": text }))).into_response();
        match status {
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

/// Who asks.
enum Caller {
    Anonymous,
    Token(TokenAccess),
}

impl Caller {
    async fn identify(api: &dyn NodeApi, headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(credentials) = headers.get(header::AUTHORIZATION) else { return Ok(Self::Anonymous) };
        let token = credentials
            .to_str()
            .ok()
            .and_then(|credentials| credentials.split_once(' '))
            .filter(|(kind, token)| kind.eq_ignore_ascii_case("bearer") && token.len() <= MAX_TOKEN_LEN)
            .ok_or(Refusal::Unauthorized)?
            .1;
        match api.authorize(token.trim()).await? {
            Some(access) => Ok(Self::Token(access)),
            None => Err(Refusal::Unauthorized),
        }
    }

    fn token(&self) -> Result<&TokenAccess, Refusal> {
        match self {
            Self::Token(access) => Ok(access),
            Self::Anonymous => Err(Refusal::Unauthorized),
        }
    }

    /// What the caller gets where nothing is for it: the same for what is absent and for what is
    /// forbidden.
    fn nothing(&self) -> Refusal {
        match self {
            Self::Token(_) => Refusal::NotFound,
            Self::Anonymous => Refusal::Unauthorized,
        }
    }

    async fn may_read(&self, api: &dyn NodeApi, replica: ReplicaId) -> Result<(), Refusal> {
        let covered = matches!(self, Self::Token(access) if access.covers(replica));
        if covered || api.is_public(replica).await? { Ok(()) } else { Err(self.nothing()) }
    }
}

/// A node without a REST interface has no tokens either.
fn api(hub: &Hub) -> Result<&dyn NodeApi, Refusal> {
    hub.api().map(|api| &**api).ok_or(Refusal::Unauthorized)
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn node(State(hub): State<Arc<Hub>>) -> Result<Json<Value>, Refusal> {
    let id = hub.node_id().ok_or(Refusal::NotFound)?;
    Ok(Json(json!({ "node_id": id.to_string() })))
}

async fn status(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let api = api(&hub)?;
    let caller = Caller::identify(api, &headers).await?;
    Ok(Json(api.status(caller.token()?).await?))
}

async fn replicas(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let api = api(&hub)?;
    let caller = Caller::identify(api, &headers).await?;
    let access = caller.token()?;
    let all = api.replicas().await?;
    let seen: Vec<Value> =
        all.iter().filter(|replica| replica.public || access.covers(replica.id)).map(replica_json).collect();
    Ok(Json(json!({ "replicas": seen })))
}

async fn keys(
    State(hub): State<Arc<Hub>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let api = api(&hub)?;
    let caller = Caller::identify(api, &headers).await?;
    let (replica, _) = locate(uri.path(), "keys").ok_or_else(|| caller.nothing())?;
    caller.may_read(api, replica).await?;
    let query = query::keys(uri.query().unwrap_or_default()).map_err(Refusal::Malformed)?;
    let limit = query.limit;
    let keys = api.keys(replica, query).await?.ok_or_else(|| caller.nothing())?;
    // The system's keys are nobody's business, whatever the interface answers.
    let full = keys.len() >= limit;
    let next = keys.last().filter(|_| full).map(|last| encode(&last.key));
    let keys: Vec<Value> = keys.iter().filter(|info| info.key.first() != Some(&0)).map(key_json).collect();
    Ok(Json(json!({ "keys": keys, "next": next })))
}

async fn value(
    State(hub): State<Arc<Hub>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let api = hub.api().cloned().ok_or(Refusal::Unauthorized)?;
    let caller = Caller::identify(&*api, &headers).await?;
    let (replica, rest) = locate(uri.path(), "values/").ok_or_else(|| caller.nothing())?;
    caller.may_read(&*api, replica).await?;
    let key = decode(rest);
    if key.is_empty() || key.len() > MAX_KEY_LEN || key[0] == 0 {
        return Err(Refusal::NotFound);
    }
    let info = api.value(replica, &key).await?.ok_or(Refusal::NotFound)?;
    let tag = format!("\"{}\"", info.hash);
    let asked = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if asked(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // A range of another version is no use: then all of this one is sent.
    let range = asked(header::RANGE).filter(|_| asked(header::IF_RANGE).is_none_or(|wanted| wanted.trim() == tag));
    let part = range::parse(range, info.len);
    if part == Part::Beyond {
        let size = format!("bytes */{}", info.len);
        return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, size)]).into_response());
    }
    if !info.complete {
        return Err(Refusal::Unavailable("the bytes of this value are not all here yet"));
    }
    Ok(value_response(Reading { api, replica, key, info }, tag, part))
}

fn value_response(reading: Reading, tag: String, part: Part) -> Response {
    let len = reading.info.len;
    let (status, bytes) = match part {
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Whole | Part::Beyond => (StatusCode::OK, 0..len),
    };
    let headers = [
        (header::ETAG, tag),
        (header::ACCEPT_RANGES, "bytes".into()),
        (header::CONTENT_LENGTH, (bytes.end - bytes.start).to_string()),
        // Values are other people's bytes: a browser must not take them for a page of this site.
        (header::CONTENT_TYPE, "application/octet-stream".into()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
        (header::CACHE_CONTROL, "private, no-cache".into()),
    ];
    let range = format!("bytes {}-{}/{len}", bytes.start, bytes.end.saturating_sub(1));
    let mut response = (status, headers, reading.body(bytes)).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = range.try_into().expect("digits are a header");
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// A value that is being sent.
struct Reading {
    api: Arc<dyn NodeApi>,
    replica: ReplicaId,
    key: Vec<u8>,
    info: ValueInfo,
}

impl Reading {
    /// The bytes in pieces, each read when the one before is on its way. What cannot be read cuts the
    /// answer short, which the client sees by its length.
    fn body(self, bytes: Range<u64>) -> Body {
        Body::from_stream(stream::try_unfold((self, bytes), |(reading, bytes)| async move {
            if bytes.is_empty() {
                return Ok(None);
            }
            let len = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX).min(VALUE_CHUNK);
            let read = reading.api.read(reading.replica, &reading.key, &reading.info, bytes.start, len).await;
            match read {
                Ok(piece) if !piece.is_empty() && piece.len() <= len => {
                    let rest = bytes.start + piece.len() as u64..bytes.end;
                    Ok(Some((piece, (reading, rest))))
                }
                Ok(piece) => Err(ApiError(format!("{} bytes were read where {len} were asked for", piece.len()))),
                Err(error) => Err(error),
            }
            .inspect_err(|error| tracing::error!(%error, "a value could not be read to its end"))
        }))
    }
}

/// Whether one of the entity tags of `If-None-Match` is `tag`; weak ones match too (RFC 9110, section 13.1.2).
fn matches(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|other| other == "*" || other.trim_start_matches("W/") == tag)
}

fn replica_json(replica: &ReplicaInfo) -> Value {
    json!({
        "id": replica.id.to_string(),
        "entries": replica.entries,
        "root": replica.root.to_string(),
        "public": replica.public,
    })
}

fn key_json(info: &KeyInfo) -> Value {
    let KeyInfo { key, value: ValueInfo { len, hash, author, timestamp, complete } } = info;
    let hash: &Hash = hash;
    json!({
        "key": std::str::from_utf8(key).ok(),
        "path": encode(key),
        "len": len,
        "hash": hash.to_string(),
        "author": author.to_string(),
        "timestamp": timestamp,
        "complete": complete,
    })
}
