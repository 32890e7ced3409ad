#!/usr/bin/env python3
"""Writes HTTP backends to a control plane over gRPC and waits until every connected data plane serves them.

    push.py [--message TEXT] [--expect-revision N] [--remove NAME]... [--timeout SECONDS] NAME=URL...

An example of a client in another language: the stubs are generated from proto/ when it starts (`pip install grpcio
grpcio-tools`). Address and token come from MCP_FLEET_CONTROL_PLANE and MCP_FLEET_TOKEN. Exit codes are those of
mcpctl: 0 done, 1 failed, 3 invalid, 4 not the expected revision, 5 timed out, 6 refused by a node, 7 not allowed,
8 unreachable.
"""
import argparse
import importlib
import os
import pathlib
import sys
import tempfile
import time

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 3,
    grpc.StatusCode.ABORTED: 4,
    grpc.StatusCode.DEADLINE_EXCEEDED: 5,
    grpc.StatusCode.UNAUTHENTICATED: 7,
    grpc.StatusCode.PERMISSION_DENIED: 7,
    grpc.StatusCode.UNAVAILABLE: 8,
}


def generated(folder):
    """The modules of config.proto, sync.proto, admin.proto and the service's stub, generated into a folder."""
    files = sorted(str(file) for file in PROTO.glob("fleet/v1/*.proto"))
    # Their imports of google/protobuf/*.proto, if any, come with grpcio-tools.
    known = pathlib.Path(protoc.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{PROTO}", f"-I{known}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]):
        sys.exit("push.py: the .proto files could not be compiled")
    sys.path.insert(0, folder)
    names = ("config_pb2", "sync_pb2", "admin_pb2", "admin_pb2_grpc")
    return [importlib.import_module(f"fleet.v1.{name}") for name in names]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backends", nargs="*", metavar="NAME=URL")
    parser.add_argument("--message", default="")
    parser.add_argument("--expect-revision", type=int)
    parser.add_argument("--remove", action="append", default=[], metavar="NAME")
    parser.add_argument("--timeout", type=float, default=120, help="seconds")
    flags = parser.parse_args()
    if not flags.backends and not flags.remove:
        parser.error("nothing to write and nothing to remove")
    for backend in flags.backends:
        if "=" not in backend:
            parser.error(f"{backend}: a backend is NAME=URL")
    for variable in ("MCP_FLEET_CONTROL_PLANE", "MCP_FLEET_TOKEN"):
        if not os.environ.get(variable):
            parser.error(f"{variable} is not set")
    return flags


def standing(node, revision, states):
    """How a node stands to a revision: 'offline', 'refused', 'pending' or 'served'; and why."""
    if node.state == states.NODE_STATE_OFFLINE:
        return "offline", ""
    if node.nacked_revision >= revision and node.nacked_revision > node.revision:
        return "refused", "; ".join(problem.message for problem in node.errors)
    if node.revision < revision:
        return "pending", ""
    return "served", "; ".join(problem.message for problem in node.degraded)


def wait(client, admin, metadata, revision, written, timeout):
    """Waits until no connected node is pending; the exit code. What is wrong goes to stderr."""
    pending, deadline = [], time.monotonic() + timeout
    try:
        for now in client.WatchNodes(admin.NodesRequest(), metadata=metadata, timeout=timeout):
            states = [(node, *standing(node, revision, admin)) for node in now.nodes]
            pending = [node.node_id for node, how, _ in states if how == "pending"]
            if not pending:
                break
        else:
            print("push.py: the control plane ended the watch of its nodes", file=sys.stderr)
            return 8
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() >= deadline - 1:
            print(f"push.py: revision {revision} was not answered by: {', '.join(pending)}", file=sys.stderr)
        raise
    code = 0
    for node, how, why in states:
        ours = any(problem.key.name in written for problem in node.degraded)
        if how == "refused" or (how == "served" and ours):
            what = "refused" if how == "refused" else "serves without all of"
            print(f"push.py: {node.node_id} {what} revision {revision}: {why}", file=sys.stderr)
            code = 6
        elif how == "offline":
            print(f"push.py: {node.node_id} is offline and will get it later", file=sys.stderr)
    served = sum(how == "served" for _, how, _ in states)
    print(f"revision {revision}: {served} of {len(states)} data planes")
    return code


def main():
    flags = arguments()
    with tempfile.TemporaryDirectory() as folder:
        config, _, admin, rpc = generated(folder)
    backends = [backend.split("=", 1) for backend in flags.backends]
    request = admin.ApplyRequest(
        resources=[
            config.Resource(backend=config.Backend(name=name, http=config.HttpBackend(url=url))) for name, url in backends
        ],
        remove=[config.ResourceKey(kind="Backend", name=name) for name in flags.remove],
        message=flags.message,
        expect_revision=flags.expect_revision,
    )
    address = os.environ["MCP_FLEET_CONTROL_PLANE"].removeprefix("http://").rstrip("/")
    metadata = [("authorization", "Bearer " + os.environ["MCP_FLEET_TOKEN"])]
    try:
        with grpc.insecure_channel(address) as channel:
            client = rpc.ConfigServiceStub(channel)
            done = client.Apply(request, metadata=metadata, timeout=flags.timeout)
            for change in done.changes:
                print(f"{change.key.kind.lower()}/{change.key.name} {admin.Action.Name(change.action)[7:].lower()}")
            written = {change.key.name for change in done.changes}
            return wait(client, admin, metadata, done.revision, written, flags.timeout)
    except grpc.RpcError as error:
        print(f"push.py: {error.code().name}: {error.details()}", file=sys.stderr)
        return CODES.get(error.code(), 1)


if __name__ == "__main__":
    sys.exit(main())
