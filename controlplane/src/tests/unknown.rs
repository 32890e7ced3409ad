//! Requests of a newer client: what this version does not know is never dropped.

use fleet_proto::v1::{DeleteRequest, DeleteResponse, ValidateRequest, ValidateResponse};
use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};
use tonic::{Code, client::Grpc};
use tonic_prost::ProstCodec;

use super::*;

/// A message as it is on the wire.
#[derive(Debug, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn of(message: &impl Message) -> Self {
        Self(message.encode_to_vec())
    }

    /// With one more field, which holds bytes.
    fn and(mut self, number: u32, body: &[u8]) -> Self {
        encoding::bytes::encode(number, &body.to_vec(), &mut self.0);
        self
    }
}

impl Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn merge_field(
        &mut self,
        number: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, number, buf, context)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Calls a method with these bytes.
async fn call<R>(plane: &Plane, token: &str, method: &'static str, raw: Raw) -> Result<R, Status>
where
    R: Message + Default + 'static,
{
    let channel = InterceptedService::new(plane.channel().await, bearer(token));
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = method.parse().unwrap();
    let codec = ProstCodec::<Raw, R>::default();
    let answer = client.unary(Request::new(raw), path, codec).await?;
    Ok(answer.into_inner())
}

const APPLY: &str = "/fleet.v1.ConfigService/Apply";

#[tokio::test]
async fn a_field_of_the_future_is_refused_by_every_write_and_nothing_changes() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let keys = vec![wire_key(Kind::Backend, "a")];
    let delete = DeleteRequest {
        keys,
        ..Default::default()
    };
    let resources = vec![backend("b")];
    let validate = ValidateRequest { resources };
    let write = apply(vec![backend("b")]);
    let token = &plane.admin;
    let (apply, validate, delete) = tokio::join!(
        call::<ApplyResponse>(&plane, token, APPLY, Raw::of(&write).and(99, b"x")),
        call::<ValidateResponse>(
            &plane,
            token,
            "/fleet.v1.ConfigService/Validate",
            Raw::of(&validate).and(98, b"x")
        ),
        call::<DeleteResponse>(
            &plane,
            token,
            "/fleet.v1.ConfigService/Delete",
            Raw::of(&delete).and(97, b"x")
        ),
    );
    let refused = [
        (apply.unwrap_err(), "field 99 of fleet.v1.ApplyRequest"),
        (
            validate.unwrap_err(),
            "field 98 of fleet.v1.ValidateRequest",
        ),
        (delete.unwrap_err(), "field 97 of fleet.v1.DeleteRequest"),
    ];
    for (status, told) in refused {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            format!("{told}: this control plane does not know it: upgrade it")
        );
    }
    let list = plane.list().await;
    assert_eq!((list.resources.len(), list.revision), (1, 1));
}

#[tokio::test]
async fn a_field_of_the_future_inside_a_backend_is_refused_with_its_place() {
    let plane = Plane::start().await;
    let Some(resource::Kind::Backend(new)) = backend("new").kind else {
        unreachable!("a backend")
    };
    let new = Raw::of(&new).and(42, b"x");
    let resource = Raw::default().and(1, &new.0);
    let request = Raw::of(&apply(vec![backend("a")])).and(1, &resource.0);
    let status = call::<ApplyResponse>(&plane, &plane.admin, APPLY, request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "resources[1].backend: field 42 of fleet.v1.Backend: \
         this control plane does not know it: upgrade it"
    );
    assert_eq!(plane.list().await.revision, 0);
}

#[tokio::test]
async fn other_encodings_of_what_is_known_are_taken() {
    let plane = Plane::start().await;
    let Some(resource::Kind::Backend(known)) = backend("a").kind else {
        unreachable!("a backend")
    };
    // The message comes first, an empty project is written out, the name last.
    let mut body = Raw::default().and(2, b"");
    body.0.extend(known.encode_to_vec());
    let body = body.and(1, b"renamed");
    let resource = Raw::default().and(1, &body.0);
    let request = Raw::default().and(3, b"why").and(1, &resource.0);
    let done = call::<ApplyResponse>(&plane, &plane.admin, APPLY, request)
        .await
        .unwrap();
    assert_eq!(
        actions(&done.changes),
        [("renamed".to_owned(), Action::Created)]
    );
    assert_eq!(plane.revisions().await.revisions[0].message, "why");
}

#[tokio::test]
async fn only_callers_with_a_token_are_told_what_is_known() {
    let plane = Plane::start().await;
    let request = Raw::default().and(99, b"x");
    let status = call::<ApplyResponse>(&plane, "wrong", APPLY, request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn bytes_that_are_no_message_and_methods_that_do_not_exist_are_refused_as_ever() {
    let plane = Plane::start().await;
    let broken = Raw(vec![0x0a, 0x7f]);
    let status = call::<ApplyResponse>(&plane, &plane.admin, APPLY, broken)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    let nowhere = "/fleet.v1.ConfigService/Explode";
    let status = call::<ApplyResponse>(&plane, &plane.admin, nowhere, Raw::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}
