//! What the scan looks for, as tables: one per object it looks into.

use super::{Message, Span};

/// Path of the message itself in errors.
pub(super) const MESSAGE: &str = "the message";

/// One object we look into.
pub(super) struct Level {
    pub(super) path: &'static str,
    /// Containers open inside of it, itself included.
    pub(super) depth: usize,
    pub(super) rows: &'static [Row],
}

/// One member we look for.
pub(super) struct Row {
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    pub(super) slot: fn(&mut Message) -> &mut Option<Span>,
}

/// What a member may be.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Any value.
    Any,
    /// The method.
    Method,
    /// The id.
    Id,
    /// A string or null.
    Text,
    /// A string, an integer or null.
    Token,
    /// An object to look into, or null.
    Object(&'static Level),
    /// Any value; looked into when it is an object.
    Perhaps(&'static Level),
}

/// `jsonrpc` has no span; it comes first, its row is checked by hand.
pub(super) const VERSION: usize = 0;

pub(super) static TOP: Level = Level {
    path: MESSAGE,
    depth: 1,
    rows: &[
        row("jsonrpc", Shape::Any, |m| &mut m.id),
        row("id", Shape::Id, |m| &mut m.id),
        row("method", Shape::Method, |m| &mut m.method),
        row("params", Shape::Object(&PARAMS), |m| &mut m.params),
        row("result", Shape::Perhaps(&RESULT), |m| &mut m.result),
        row("error", Shape::Perhaps(&ERROR), |m| &mut m.error),
    ],
};

static PARAMS: Level = Level {
    path: "params",
    depth: 2,
    rows: &[
        row("name", Shape::Text, |m| &mut m.name),
        row("arguments", Shape::Any, |m| &mut m.arguments),
        row("_meta", Shape::Object(&META), |m| &mut m.meta),
        row("uri", Shape::Text, |m| &mut m.uri),
        row("cursor", Shape::Any, |m| &mut m.cursor),
        row("level", Shape::Any, |m| &mut m.level),
        row("ref", Shape::Perhaps(&REF), |m| &mut m.reference),
        row("requestState", Shape::Any, |m| &mut m.request_state),
        row("inputResponses", Shape::Any, |m| &mut m.input_responses),
        row("requestId", Shape::Token, |m| &mut m.request_id),
        row("progressToken", Shape::Token, |m| {
            &mut m.params_progress_token
        }),
        row("protocolVersion", Shape::Any, |m| {
            &mut m.init_protocol_version
        }),
        row("capabilities", Shape::Any, |m| &mut m.init_capabilities),
        row("clientInfo", Shape::Any, |m| &mut m.init_client_info),
        row("taskId", Shape::Text, |m| &mut m.task_id),
    ],
};

static META: Level = Level {
    path: "params._meta",
    depth: 3,
    rows: &[
        row("progressToken", Shape::Token, |m| &mut m.progress_token),
        row("io.modelcontextprotocol/protocolVersion", Shape::Any, |m| {
            &mut m.protocol_version
        }),
        row("io.modelcontextprotocol/clientInfo", Shape::Any, |m| {
            &mut m.client_info
        }),
        row(
            "io.modelcontextprotocol/clientCapabilities",
            Shape::Any,
            |m| &mut m.client_capabilities,
        ),
        row("io.modelcontextprotocol/logLevel", Shape::Any, |m| {
            &mut m.log_level
        }),
    ],
};

static REF: Level = Level {
    path: "params.ref",
    depth: 3,
    rows: &[
        row("type", Shape::Text, |m| &mut m.ref_type),
        row("name", Shape::Text, |m| &mut m.ref_name),
        row("uri", Shape::Text, |m| &mut m.ref_uri),
    ],
};

static RESULT: Level = Level {
    path: "result",
    depth: 2,
    rows: &[
        row("resultType", Shape::Any, |m| &mut m.result_type),
        row("requestState", Shape::Any, |m| &mut m.request_state),
        row("_meta", Shape::Perhaps(&RESULT_META), |m| &mut m.meta),
        row("taskId", Shape::Any, |m| &mut m.task_id),
    ],
};

static RESULT_META: Level = Level {
    path: "result._meta",
    depth: 3,
    rows: &[],
};

static ERROR: Level = Level {
    path: "error",
    depth: 2,
    rows: &[row("code", Shape::Any, |m| &mut m.error_code)],
};

const fn row(key: &'static str, shape: Shape, slot: fn(&mut Message) -> &mut Option<Span>) -> Row {
    Row { key, shape, slot }
}
