//! Every configuration key once: its name, type, default and meaning.
//!
//! The structs, the reader, the list of valid names and `docs/configuration.md` all come from the
//! tables below, so none of them can say something that the others do not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use highwater_proto::{ByteSize, NodeId};

use super::Config;
use super::value::{Address, GRPC_PORT, Millis, Raw, Setting};

/// The admin HTTP port: metrics and health.
pub const ADMIN_PORT: u16 = 9644;

/// One key, for readers and for the reference.
pub struct Key {
    /// Its table in the file.
    pub section: &'static str,
    /// Its name within the table.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What a value looks like.
    pub expected: &'static str,
    /// Sets the key in `Config`, or says why it cannot.
    pub set: fn(&mut Config, &Raw) -> Result<(), String>,
    /// The value that `Config` has, as a person would write it.
    pub show: fn(&Config) -> String,
}

impl Key {
    /// `section.name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that overrides it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("HIGHWATER_{}_{}", self.section, self.name).to_ascii_uppercase()
    }
}

macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])* $name:ident: $Type:ty = $default:expr, )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $name: $Type, )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $name: $default, )* }
                }
            }
        )*

        /// Every section with its meaning, in the order of the reference.
        pub const SECTIONS: &[(&str, &str)] =
            &[$( (stringify!($section), concat!($( $section_doc ),*)), )*];

        /// Every key, in the order of the reference.
        pub const KEYS: &[Key] = &[$($(
            Key {
                section: stringify!($section),
                name: stringify!($name),
                doc: concat!($( $doc ),*),
                expected: <$Type as Setting>::EXPECTED,
                set: |config, raw| {
                    config.$section.$name = <$Type as Setting>::read(raw)?;
                    Ok(())
                },
                show: |config| config.$section.$name.show(),
            },
        )*)*];
    };
}

sections! {
    /// Who this broker is, and whom it forms a cluster with.
    node: Node {
        /// This broker's number, unique in the cluster and kept for ever. It has no default.
        id: NodeId = NodeId(0),
        /// Where everything durable lies. Created when missing.
        data_dir: PathBuf = PathBuf::from("highwater-data"),
        /// The failure domain: replicas of a partition are spread over racks.
        rack: String = String::new(),
        /// The brokers that form the cluster: the same list on each of them, this one included.
        /// Empty means a cluster of this broker alone.
        join: Vec<Address> = Vec::new(),
        /// Where clients and other brokers reach this one. Needed when `listen.grpc` is a
        /// wildcard address and `node.join` is not empty.
        advertised_address: Option<Address> = None,
        /// Raft groups ("shards") for each broker that makes the cluster; the one with the lowest id
        /// decides, once. At most 64; 0: as many as it has processors, 2 to 8.
        shards_per_broker: u32 = 0,
    }
    /// Where this broker listens. Port 0 takes any free port.
    listen: Listen {
        /// Clients and other brokers (gRPC).
        grpc: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), GRPC_PORT),
        /// Metrics and health (HTTP). Nothing secret, but nothing for the open internet either.
        admin: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ADMIN_PORT),
    }
    /// The write-ahead log, shared by everything the broker hosts.
    wal: Wal {
        /// How much log is kept for followers that were away: beyond it they need a snapshot.
        budget_bytes: ByteSize = ByteSize(8 << 30),
        /// The size of one log file. Files are preallocated and recycled.
        file_bytes: ByteSize = ByteSize(64 << 20),
    }
    /// Partition files and checkpoints.
    storage: Storage {
        /// Free disk space below which produce is refused while everything else goes on.
        reserve_bytes: ByteSize = ByteSize(1 << 30),
        /// The longest time between two checkpoints of a shard that changes.
        checkpoint_interval_ms: Millis = Millis(60_000),
        /// A shard is checkpointed sooner when it applied this much since the last one.
        checkpoint_bytes: ByteSize = ByteSize(64 << 20),
        /// The time between two looks for records that are older, or more, than their topic keeps.
        retention_interval_ms: Millis = Millis(30_000),
        /// Partition files kept open at a time. Others are opened when they are needed.
        max_open_files: u32 = 1_024,
    }
    /// Elections. All brokers of a cluster should agree on these.
    raft: Raft {
        /// Time between two heartbeats of a leader.
        heartbeat_ms: Millis = Millis(100),
        /// The shortest time without a heartbeat after which a follower stands for election.
        election_min_ms: Millis = Millis(300),
        /// The longest such time; each follower draws its own between both.
        election_max_ms: Millis = Millis(450),
    }
    /// Bounds on memory and connections, whatever the load.
    limits: Limits {
        /// Produced bytes that may be in flight: more of them wait, which slows their producers.
        admission_bytes: ByteSize = ByteSize(128 << 20),
        /// Bytes of large requests that are still coming in: more of them wait before they are read.
        receive_bytes: ByteSize = ByteSize(128 << 20),
        /// Bytes read for consumers and not yet taken by them: beyond it responses are small.
        fetch_bytes: ByteSize = ByteSize(128 << 20),
        /// Recent records kept in memory for consumers that are up to date.
        tail_cache_bytes: ByteSize = ByteSize(128 << 20),
        /// Recent log entries kept in memory for followers.
        log_cache_bytes: ByteSize = ByteSize(64 << 20),
        /// Bytes a second that this broker sends to replicas that are being filled or repaired, all of
        /// them together. 0: without a bound.
        move_bytes_per_second: ByteSize = ByteSize(128 << 20),
        /// Client connections at a time.
        max_connections: u32 = 1_000,
    }
    /// Looking for rot in the background: what is stored is read again and checked against what was
    /// written.
    scrub: Scrub {
        /// Bytes read a second, at most. 0: nothing is scrubbed, and rot is found when it is read.
        bytes_per_second: ByteSize = ByteSize(8 << 20),
        /// From the start of one pass over everything to the start of the next.
        interval_ms: Millis = Millis(24 * 3_600_000),
        /// Between two comparisons of the checksums that the replicas of a shard have of its closed
        /// ranges, by the broker that leads it. 0: never.
        compare_interval_ms: Millis = Millis(600_000),
    }
    /// Compaction of topics with `cleanup.policy=compact`, in the background.
    compaction: Compaction {
        /// Memory for keys. When it is full, what was read so far is written, and the rest is compacted
        /// in another round.
        dedupe_buffer_bytes: ByteSize = ByteSize(128 << 20),
        /// Bytes read and written a second, at most. 0: without a bound.
        bytes_per_second: ByteSize = ByteSize(64 << 20),
        /// Between two looks for what is to be compacted, by the broker that leads a shard.
        interval_ms: Millis = Millis(15_000),
    }
    /// What is done about damage without being asked.
    repair: Repair {
        /// Whether a bad range is fetched again from the other replicas, and a replica that stopped is
        /// filled again from them.
        automatic: bool = true,
        /// How long a replica must have stood still before it is filled again; also the least time
        /// between two such repairs.
        after_ms: Millis = Millis(60_000),
    }
    /// Consumer groups.
    groups: Groups {
        /// A group that has had no members for this long is forgotten with its offsets.
        retention_ms: Millis = Millis(7 * 24 * 3_600_000),
    }
    /// What a new topic gets when its creator does not say.
    defaults: Defaults {
        /// Partitions.
        partitions: u32 = 1,
        /// Replicas of each partition: 1, 3 or 5.
        replication_factor: u32 = 3,
        /// The largest record batch that is accepted, at most 64 MiB.
        max_message_bytes: ByteSize = ByteSize(1 << 20),
    }
}
