//! Compiles `fleet/v1/*.proto` without a system `protoc`.

use std::{env, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 7] = [
    "fleet/v1/types.proto",
    "fleet/v1/config.proto",
    "fleet/v1/sync.proto",
    "fleet/v1/admin.proto",
    "fleet/v1/identity.proto",
    "fleet/v1/security.proto",
    "fleet/v1/reports.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let descriptors = protox::Compiler::new(["."])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();
    let bytes = descriptors.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &bytes)?;

    let mut config = tonic_prost_build::Config::new();
    config
        // Maps in order: output and hashes are stable.
        .btree_map(["."])
        // They hold secrets: src/redact.rs has theirs.
        .skip_debug([
            ".fleet.v1.BearerAuth",
            ".fleet.v1.CreateTokenResponse",
            ".fleet.v1.RevokeRequest",
            ".fleet.v1.Secret",
            ".fleet.v1.SecretValue",
            ".fleet.v1.SessionKey",
            ".fleet.v1.UnrevokeRequest",
        ])
        .extern_path(".fleet.v1.Duration", "crate::duration::Duration")
        .extern_path(".fleet.v1.Json", "crate::json::Json");
    tonic_prost_build::configure()
        .build_transport(true)
        .compile_fds_with_config(descriptors, config)?;

    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .preserve_proto_field_names()
        .btree_map(["."])
        .extern_path(".fleet.v1.Duration", "crate::duration::Duration")
        .extern_path(".fleet.v1.Json", "crate::json::Json")
        .exclude([".fleet.v1.Duration", ".fleet.v1.Json"])
        .build(&[".fleet.v1"])?;
    Ok(())
}
