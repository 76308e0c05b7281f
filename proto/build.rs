//! Compiles the `.proto` files with a pure-Rust compiler: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 8] = [
        "proto/highwater/v1/groups.proto",
        "proto/highwater/v1/highwater.proto",
        "proto/highwater/v1/lifecycle.proto",
        "proto/highwater/v1/topics.proto",
        "proto/highwater/internal/v1/internal.proto",
        "proto/highwater/internal/v1/shard_groups.proto",
        "proto/highwater/internal/v1/members.proto",
        "proto/highwater/internal/v1/shard_state.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::SizedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
