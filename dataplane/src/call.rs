//! [`Call`]: what travels down the stack, and [`Reply`]: what comes back.

use std::{borrow::Cow, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    auth::Principal,
    envelope::{self, Kind, Message},
    error::CallError,
    rounds::Rounds,
    session::Session,
};

/// Which shard of the worker-local structures a task uses: the number of its
/// worker, or one past the last worker for the background runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub usize);

/// How protocol revisions open a conversation (2026-07-28, Versioning: Terminology).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// `initialize` and a session: 2025-11-25 and earlier.
    Legacy,
    /// Metadata on every request: 2026-07-28.
    Modern,
}

/// The protocol revisions spoken here, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// 2025-03-26: the first with streamable HTTP; may send batches.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl ProtocolVersion {
    /// All of them, newest first: the order in which they are offered.
    pub const ALL: [Self; 4] = [
        Self::V2026_07_28,
        Self::V2025_11_25,
        Self::V2025_06_18,
        Self::V2025_03_26,
    ];
    /// The newest one that opens with `initialize`.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision of this name; `None` for one that is not spoken here.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == name)
    }

    /// Its era.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2026_07_28 => Era::Modern,
            _ => Era::Legacy,
        }
    }
}

/// The methods that the proxy knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Initialize,
    Discover,
    Ping,
    SetLevel,
    ToolsList,
    ToolsCall,
    ResourcesList,
    TemplatesList,
    ResourcesRead,
    Subscribe,
    Unsubscribe,
    PromptsList,
    PromptsGet,
    Complete,
    Listen,
    TaskGet,
    TaskUpdate,
    TaskCancel,
    Other,
}

impl Method {
    /// Whether it begins or ends a subscription to a resource.
    #[must_use]
    pub const fn is_about_subscription(self) -> bool {
        matches!(self, Self::Subscribe | Self::Unsubscribe)
    }

    /// The method of this name.
    #[must_use]
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"tools/call" => Self::ToolsCall,
            b"tools/list" => Self::ToolsList,
            b"resources/read" => Self::ResourcesRead,
            b"resources/list" => Self::ResourcesList,
            b"resources/templates/list" => Self::TemplatesList,
            b"resources/subscribe" => Self::Subscribe,
            b"resources/unsubscribe" => Self::Unsubscribe,
            b"prompts/get" => Self::PromptsGet,
            b"prompts/list" => Self::PromptsList,
            b"completion/complete" => Self::Complete,
            b"subscriptions/listen" => Self::Listen,
            b"tasks/get" => Self::TaskGet,
            b"tasks/update" => Self::TaskUpdate,
            b"tasks/cancel" => Self::TaskCancel,
            b"server/discover" => Self::Discover,
            b"initialize" => Self::Initialize,
            b"ping" => Self::Ping,
            b"logging/setLevel" => Self::SetLevel,
            _ => Self::Other,
        }
    }

    /// Whether it is defined in revisions of this era. Unknown methods are: a
    /// backend may define them.
    #[must_use]
    pub const fn exists_in(self, era: Era) -> bool {
        match self {
            Self::Initialize
            | Self::Ping
            | Self::SetLevel
            | Self::Subscribe
            | Self::Unsubscribe => {
                matches!(era, Era::Legacy)
            }
            Self::Discover | Self::Listen | Self::TaskUpdate => matches!(era, Era::Modern),
            _ => true,
        }
    }

    /// Whether `Mcp-Name` mirrors `params.name` or `params.uri` (2026-07-28,
    /// Streamable HTTP: Standard Request Headers).
    #[must_use]
    pub const fn has_name(self) -> bool {
        matches!(
            self,
            Self::ToolsCall | Self::ResourcesRead | Self::PromptsGet
        )
    }

    /// Whether it is about a task, whose id `Mcp-Name` mirrors (SEP-2663, Streamable HTTP:
    /// Routing Headers).
    #[must_use]
    pub const fn is_about_task(self) -> bool {
        matches!(self, Self::TaskGet | Self::TaskUpdate | Self::TaskCancel)
    }
}

/// One request of a client, on its way to one backend.
#[derive(Clone)]
pub struct Call {
    /// Whose connection pools it uses.
    pub worker: WorkerId,
    /// What the client speaks.
    pub version: ProtocolVersion,
    /// Its method.
    pub method: Method,
    /// The message as the client sent it.
    pub body: Bytes,
    /// Where things are in `body`.
    pub message: Message,
    /// What takes the place of the name or URI: a JSON string literal with its
    /// quotes. `None`: it travels as the client wrote it.
    pub target: Option<Bytes>,
    /// `Mcp-Param-*` headers, as they came or as the tool's schema asks for them.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
    /// Who the client is.
    pub principal: Arc<Principal>,
    /// The client's session, where it has one.
    pub session: Option<Arc<Session>>,
    /// What it needs where it may take several rounds.
    pub rounds: Rounds,
}

impl Call {
    /// Source text of the request's id. Every call is a request, and so has one.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.message.id.map_or(b"null", |span| span.of(&self.body))
    }

    /// The resource that it is about.
    #[must_use]
    pub fn uri(&self) -> Option<Cow<'_, str>> {
        envelope::string_value(&self.body, self.message.uri?)
    }

    /// The method's name.
    #[must_use]
    pub fn method_name(&self) -> &[u8] {
        self.message.method.map_or(b"", |span| span.of(&self.body))
    }
}

/// A backend's answer. Its messages carry the client's request id.
pub enum Reply {
    /// One response, whole.
    Whole(Answer),
    /// A successful one of the proxy's own, in parts that follow one another: those that
    /// all clients get are not copied for each.
    Parts(Vec<Bytes>),
    /// Notifications, and the response last.
    Stream(Messages),
}

impl Reply {
    /// Does something when it is, or brings, a response that is no error.
    pub(crate) fn when_done(self, done: impl FnOnce() + Send + 'static) -> Self {
        match self {
            Self::Stream(messages) => {
                let mut done = Some(done);
                Self::Stream(Box::pin(messages.inspect(move |message| {
                    let message = message.as_ref().ok().and_then(|m| envelope::scan(m).ok());
                    if message.is_some_and(|message| message.kind == Kind::Response)
                        && let Some(done) = done.take()
                    {
                        done();
                    }
                })))
            }
            whole => {
                if !matches!(&whole, Self::Whole(answer) if answer.error.is_some()) {
                    done();
                }
                whole
            }
        }
    }
}

/// Messages of one call; the response is the last of them.
///
/// Where the client's version lets a server close such a stream and have the client
/// come back for the rest (2025-11-25), an empty one is no message: as the first it
/// says that the backend promises this, later that it has done so.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, CallError>> + Send>>;

/// One JSON-RPC response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message.
    pub body: Bytes,
    /// The code, when it is an error.
    pub error: Option<i64>,
    /// The HTTP status that a client of the modern era is to see.
    pub status: StatusCode,
}

impl Answer {
    /// A successful one.
    #[must_use]
    pub fn ok(body: Bytes) -> Self {
        Self {
            body,
            error: None,
            status: StatusCode::OK,
        }
    }
}
