//! Why a reconcile did not come to its end.

use crate::credentials::ca::SecretError;
use crate::credentials::revocation::RevocationError;
use crate::credentials::tokens::{KeyStoreError, TokenError};
use crate::kubernetes::apply::ApplyError;

/// Why a reconcile did not come to its end; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// An object could not be applied or deleted.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A Secret with a certificate could not be brought up to date.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The tenant's keys are not at hand.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A token could not be signed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A revocation could not be kept.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The API server refused or could not be reached.
    #[error("failed to {verb}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// What the API server said.
        source: kube::Error,
    },
    /// The object lacks what the API server gives to every object.
    #[error("failed to read {0} of the object")]
    Incomplete(&'static str),
}

impl ReconcileError {
    /// Names what was tried.
    pub(crate) fn api(verb: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { verb, source }
    }

    /// What the API server answered, if it did.
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Apply(ApplyError::Api { source, .. })
            | Self::Secret(SecretError::Api { source, .. })
            | Self::Keys(KeyStoreError::Api { source, .. })
            | Self::Api { source, .. } => match source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether what we knew was older than what is there: the next look will do.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether trying again will not help until someone changes something.
    pub(crate) fn is_permanent(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 422))
            || matches!(self, Self::Apply(ApplyError::NotOurs { .. }) | Self::Secret(SecretError::NotOurs { .. }))
    }

    /// The whole chain, for a condition.
    pub(crate) fn chain(&self) -> String {
        crate::error::chain(self)
    }
}
