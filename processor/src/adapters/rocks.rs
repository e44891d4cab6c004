//! Local state in RocksDB.
