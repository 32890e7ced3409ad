//! What nodes report, as far as a caller sees it.

use std::{sync::Arc, time::Duration};

use fleet_proto::v1::{self, LogLines};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{Api, ApiError, Caller, auth::Access};
use crate::reports::{Following, Level};

/// How often it is asked whether the token of somebody who follows is still good.
const RECHECK: Duration = Duration::from_secs(5);

/// Lines for somebody who follows; an error is the last item.
pub(crate) type Lines = mpsc::Receiver<Result<LogLines, ApiError>>;

impl Api {
    /// The last status of a node, with the backends of the caller's projects.
    pub(crate) fn node_status(
        &self,
        caller: &Caller,
        request: &v1::GetNodeStatusRequest,
    ) -> Result<v1::GetNodeStatusResponse, ApiError> {
        let node_id = &request.node_id;
        let (reported, is_here) = self.reports.status(node_id);
        if !is_here && self.nodes.is_elsewhere(node_id) {
            return Err(elsewhere(node_id));
        }
        let Some(reported) = reported else {
            return Err(ApiError::NotFound(format!(
                "there is no status of node {node_id}: it has reported nothing since this control \
                 plane started"
            )));
        };
        let mut status = (*reported.status).clone();
        status.backends.retain(|b| caller.sees(&b.project));
        Ok(v1::GetNodeStatusResponse {
            status: Some(status),
            at_ms: reported.at_ms,
        })
    }

    /// The log of a node from now on.
    pub(crate) fn follow_log(
        self: &Arc<Self>,
        caller: Caller,
        request: &v1::FollowNodeLogRequest,
    ) -> Result<Lines, ApiError> {
        caller.needs(Access::Admin)?;
        if caller.is_limited() {
            // Lines say nothing of projects.
            return Err(caller.beyond("the log of a node shows").into());
        }
        let level = match request.level.as_str() {
            "" => Level::Info,
            level => Level::parse(level).ok_or_else(|| {
                ApiError::Bad(format!(
                    "there is no level `{level}`: use one of error, warn, info, debug"
                ))
            })?,
        };
        let node_id = &request.node_id;
        let Some(following) = self.reports.follow(node_id, level) else {
            return Err(if self.nodes.is_elsewhere(node_id) {
                elsewhere(node_id)
            } else {
                ApiError::Unavailable(format!(
                    "node {node_id} is not connected to this control plane: its log can be followed \
                     once it is"
                ))
            });
        };
        let (sender, lines) = mpsc::channel(1);
        tokio::spawn(pass(Arc::clone(self), caller, following, sender));
        Ok(lines)
    }
}

fn elsewhere(node_id: &str) -> ApiError {
    ApiError::Unavailable(format!(
        "node {node_id} is connected to another control plane of this database: ask that one, by \
         its own address"
    ))
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

/// Passes lines on, as long as the caller stays and the token is good.
async fn pass(
    api: Arc<Api>,
    caller: Caller,
    mut following: Following,
    sender: mpsc::Sender<Result<LogLines, ApiError>>,
) {
    let mut shutdown = api.shutdown.clone();
    let void = sleep(RECHECK);
    tokio::pin!(void);
    let end = loop {
        tokio::select! {
            lines = following.next() => {
                let Some(lines) = lines else {
                    let what = "the node has left: follow it again once it is back";
                    break ApiError::Unavailable(what.to_owned());
                };
                if sender.send(Ok(lines)).await.is_err() {
                    return;
                }
            }
            () = sender.closed() => return,
            () = stopped(&mut shutdown) => {
                break ApiError::Unavailable("the control plane stops".to_owned());
            }
            () = &mut void => {
                if let Err(refused) = api.tokens.admits_still(&caller).await {
                    break refused.into();
                }
                void.set(sleep(RECHECK));
            }
        }
    };
    let _ = sender.send(Err(end)).await;
}
