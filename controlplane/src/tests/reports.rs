//! What nodes report, and who sees it.

use fleet_proto::v1::{
    BackendStatus, CatalogueState, CreateTokenRequest, FollowNodeLogRequest, GetNodeStatusRequest,
    GetNodeStatusResponse, LogLine, LogLines, NodeReport, NodeStatus, ReportRequest, ReportsHello,
    TokenRole, fleet_reports_client::FleetReportsClient, node_report::Report,
    report_request::Request as Asked, report_service_client::ReportServiceClient,
};
use tonic::{Code, Streaming};

use super::*;

mod elsewhere;

type Reader = ReportServiceClient<InterceptedService<Channel, Bearer>>;

/// A node's end of the reports stream.
struct Reporting {
    say: mpsc::Sender<NodeReport>,
    asked: Streaming<ReportRequest>,
}

impl Reporting {
    async fn try_open(plane: &Plane, token: &str, id: &str) -> Result<Self, Status> {
        let mut client = FleetReportsClient::with_interceptor(plane.channel().await, bearer(token));
        let (say, receiver) = mpsc::channel(200);
        let asked = client.reports(ReceiverStream::new(receiver)).await?;
        let node = Self {
            say,
            asked: asked.into_inner(),
        };
        node.say(Report::Hello(ReportsHello {
            node_id: id.to_owned(),
            boot_id: "boot-1".to_owned(),
        }))
        .await;
        Ok(node)
    }

    async fn open(plane: &Plane, id: &str) -> Self {
        Self::try_open(plane, &plane.node, id).await.unwrap()
    }

    async fn say(&self, report: Report) {
        let report = Some(report);
        self.say.send(NodeReport { report }).await.unwrap();
    }

    /// What it is asked for next: a level, or nothing.
    async fn asked(&mut self) -> String {
        let asked = timeout(PATIENCE, self.asked.message()).await.unwrap();
        match asked.unwrap().unwrap().request.unwrap() {
            Asked::FollowLog(follow) => follow.level,
            Asked::StopLog(_) => String::new(),
        }
    }

    async fn end(&mut self) -> Status {
        let end = timeout(PATIENCE, self.asked.message()).await.unwrap();
        end.unwrap_err()
    }
}

async fn reader(plane: &Plane, token: &str) -> Reader {
    ReportServiceClient::with_interceptor(plane.channel().await, bearer(token))
        .max_decoding_message_size(64 << 20)
}

async fn status(reader: &mut Reader, id: &str) -> Result<GetNodeStatusResponse, Status> {
    let node_id = id.to_owned();
    let status = reader
        .get_node_status(GetNodeStatusRequest { node_id })
        .await;
    Ok(status?.into_inner())
}

/// Waits until the last status of a node is this one.
async fn until_calls(reader: &mut Reader, id: &str, calls: u64) -> NodeStatus {
    let until = async {
        loop {
            if let Ok(found) = status(reader, id).await
                && let Some(found) = found.status.filter(|s| s.calls == calls)
            {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, until).await.expect("no such status")
}

async fn token(plane: &Plane, name: &str, role: TokenRole, projects: &[&str]) -> String {
    let request = CreateTokenRequest {
        name: name.to_owned(),
        role: role.into(),
        projects: projects.iter().map(ToString::to_string).collect(),
        expires_in: None,
    };
    let made = plane.client().await.create_token(request).await;
    made.unwrap().into_inner().value
}

fn doing(calls: u64, projects: &[&str]) -> NodeStatus {
    let backend = |project: &&str| BackendStatus {
        project: (*project).to_owned(),
        name: "b".to_owned(),
        state: CatalogueState::Stale.into(),
        tools: 3,
        error: "connection refused".to_owned(),
        ..BackendStatus::default()
    };
    NodeStatus {
        calls,
        backends: projects.iter().map(backend).collect(),
        ..NodeStatus::default()
    }
}

fn follow(id: &str, level: &str) -> FollowNodeLogRequest {
    FollowNodeLogRequest {
        node_id: id.to_owned(),
        level: level.to_owned(),
    }
}

fn lines(of: &[(&str, &str)], dropped: u64) -> LogLines {
    let line = |(level, text): &(&str, &str)| LogLine {
        level: (*level).to_owned(),
        text: (*text).to_owned(),
        ..LogLine::default()
    };
    LogLines {
        lines: of.iter().map(line).collect(),
        dropped,
    }
}

#[tokio::test]
async fn the_last_status_stays_and_shows_nobody_more_than_their_projects() {
    let plane = Plane::start().await;
    let mut admin = reader(&plane, &plane.admin).await;
    let none = status(&mut admin, "n1").await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    let node = Reporting::open(&plane, "n1").await;
    node.say(Report::Status(doing(1, &["a", "b"]))).await;
    until_calls(&mut admin, "n1", 1).await;
    node.say(Report::Status(doing(2, &["a", "b", "c"]))).await;
    let all = until_calls(&mut admin, "n1", 2).await;
    assert_eq!(all, doing(2, &["a", "b", "c"]));

    let limited = token(&plane, "team", TokenRole::Viewer, &["b"]).await;
    let seen = status(&mut reader(&plane, &limited).await, "n1").await;
    assert_eq!(seen.unwrap().status, Some(doing(2, &["b"])));

    // REST says the same; the node is gone, what it said last is not.
    drop(node);
    let address = plane.running.rest_addr().unwrap();
    let url = format!("http://{address}/api/v1/nodes/n1/status");
    let rest = reqwest::Client::new().get(&url).bearer_auth(&plane.admin);
    let rest = rest.send().await.unwrap().text().await.unwrap();
    let rest: GetNodeStatusResponse = serde_json::from_str(&rest).unwrap();
    assert_eq!(rest, status(&mut admin, "n1").await.unwrap());
    assert!(rest.at_ms > 0);
}

#[tokio::test]
async fn nodes_report_with_a_node_token_and_people_read_with_one_of_theirs() {
    let plane = Plane::start().await;
    let refused = Reporting::try_open(&plane, &plane.admin, "n1").await;
    assert_eq!(refused.err().unwrap().code(), Code::Unauthenticated);
    let refused = status(&mut reader(&plane, &plane.node).await, "n1").await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    // A node that does not keep to the protocol is told.
    let mut nameless = Reporting::open(&plane, "").await;
    assert!(nameless.end().await.message().contains("node_id"));
    let mut old = Reporting::open(&plane, "n1").await;
    old.say(Report::Status(doing(4, &[]))).await;
    until_calls(&mut reader(&plane, &plane.admin).await, "n1", 4).await;
    let new = Reporting::open(&plane, "n1").await;
    assert!(old.end().await.message().contains("newer stream"));
    new.say(Report::Status(doing(5, &[]))).await;
    until_calls(&mut reader(&plane, &plane.admin).await, "n1", 5).await;
}

#[tokio::test]
async fn a_node_sends_its_log_while_somebody_follows_and_each_gets_their_level() {
    let plane = Plane::start().await;
    let mut node = Reporting::open(&plane, "n1").await;
    node.say(Report::Status(doing(1, &[]))).await;
    let mut admin = reader(&plane, &plane.admin).await;
    until_calls(&mut admin, "n1", 1).await;

    let warnings = admin.follow_node_log(follow("n1", "warn")).await;
    let mut warnings = warnings.unwrap().into_inner();
    assert_eq!(node.asked().await, "warn");
    let all = admin.follow_node_log(follow("n1", "debug")).await;
    let mut all = all.unwrap().into_inner();
    assert_eq!(node.asked().await, "debug");
    let said = [("warn", "w"), ("debug", "d"), ("error", "e")];
    node.say(Report::Log(lines(&said, 7))).await;
    let got = warnings.message().await.unwrap().unwrap();
    assert_eq!(got, lines(&[("warn", "w"), ("error", "e")], 7));
    assert_eq!(all.message().await.unwrap().unwrap(), lines(&said, 7));
    drop(all);
    assert_eq!(node.asked().await, "warn");
    drop(warnings);
    assert_eq!(node.asked().await, "", "nobody is left");

    // REST: a JSON text each line.
    let address = plane.running.rest_addr().unwrap();
    let url = format!("http://{address}/api/v1/nodes/n1/log?level=error");
    let request = reqwest::Client::new().get(&url).bearer_auth(&plane.admin);
    let mut rest = request.send().await.unwrap();
    assert_eq!(rest.headers()["content-type"], "application/x-ndjson");
    assert_eq!(node.asked().await, "error");
    node.say(Report::Log(lines(&said, 0))).await;
    let line = timeout(PATIENCE, rest.chunk()).await.unwrap().unwrap();
    let line: LogLines = serde_json::from_slice(&line.unwrap()).unwrap();
    assert_eq!(line, lines(&[("error", "e")], 0));
    // The node leaves: that is said, and is the end.
    drop(node);
    let last = timeout(PATIENCE, rest.text()).await.unwrap().unwrap();
    assert!(
        last.contains("\"status\":503") && last.contains("has left"),
        "{last}"
    );
}

#[tokio::test]
async fn only_an_admin_of_all_projects_follows_a_log() {
    let plane = Plane::start().await;
    let _node = Reporting::open(&plane, "n1").await;
    for (name, role, projects) in [
        ("viewer", TokenRole::Viewer, &[][..]),
        ("editor", TokenRole::Editor, &[]),
        ("team", TokenRole::Admin, &["a"]),
    ] {
        let token = token(&plane, name, role, projects).await;
        let mut reader = reader(&plane, &token).await;
        let refused = reader.follow_node_log(follow("n1", "")).await;
        assert_eq!(
            refused.unwrap_err().code(),
            Code::PermissionDenied,
            "{name}"
        );
    }
    let mut admin = reader(&plane, &plane.admin).await;
    let wrong = admin
        .follow_node_log(follow("n1", "loud"))
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let gone = admin.follow_node_log(follow("n2", "")).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable);
    assert!(gone.message().contains("not connected"), "{gone}");
}

#[tokio::test]
async fn a_follower_that_does_not_read_loses_lines_and_is_told_how_many() {
    let plane = Plane::start().await;
    let mut node = Reporting::open(&plane, "n1").await;
    node.say(Report::Status(doing(1, &[]))).await;
    let mut admin = reader(&plane, &plane.admin).await;
    until_calls(&mut admin, "n1", 1).await;
    let slow = admin.follow_node_log(follow("n1", "info")).await;
    let mut slow = slow.unwrap().into_inner();
    assert_eq!(node.asked().await, "info");
    // More than windows and buffers on the way hold.
    let text = "x".repeat(4096);
    let batch = lines(&vec![("info", text.as_str()); 20], 0);
    const BATCHES: u64 = 500;
    for n in 0..BATCHES {
        node.say(Report::Log(batch.clone())).await;
        // Nobody is held up by it.
        node.say(Report::Status(doing(n + 2, &[]))).await;
    }
    until_calls(&mut admin, "n1", BATCHES + 1).await;
    let (mut got, mut dropped) = (0, 0);
    let mut nudge = tokio::time::interval(Duration::from_millis(20));
    let counted = async {
        while got + dropped < BATCHES * 20 {
            tokio::select! {
                batch = slow.message() => {
                    let batch = batch.unwrap().unwrap();
                    got += batch.lines.len() as u64;
                    dropped += batch.dropped;
                }
                // What was left out is told with the next lines.
                _ = nudge.tick() => node.say(Report::Log(lines(&[], 0))).await,
            }
        }
    };
    timeout(PATIENCE, counted).await.expect("lines are missing");
    assert!(dropped > 0 && got > 0, "{got} {dropped}");
    assert_eq!(got + dropped, BATCHES * 20);
}
