//! Where the tokens of managed principals and the keys that sign them are kept: in Secrets.

mod store;

pub use store::secret_name;
pub(crate) use store::{KeyStore, KeyStoreError};
