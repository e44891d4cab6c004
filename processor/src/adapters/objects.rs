//! Object stores by URL.
