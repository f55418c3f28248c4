//! Errors of a reconcile.

use mcp_fleet_core::credentials::tokens::TokenError;

use crate::credentials::ca::SecretError;
use crate::credentials::revocation::RevocationError;
use crate::credentials::tokens::KeyStoreError;
use crate::kubernetes::apply::ApplyError;

/// Why a reconcile failed. It is retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// An object could not be applied or deleted.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A Secret with a certificate could not be created or renewed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The keys of the tenant could not be read or created.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A token could not be signed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A revocation could not be stored.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The API server rejected the request or could not be reached.
    #[error("failed to {verb}")]
    Api {
        /// What was tried, for example "list the pods".
        verb: &'static str,
        source: kube::Error,
    },
    /// The finalizer could not be added or removed.
    #[error("failed to change the finalizers")]
    Finalizer(#[source] kube::Error),
    /// The object lacks a field that the API server sets on every object.
    #[error("failed to read {0} of the object")]
    Incomplete(&'static str),
}

impl ReconcileError {
    /// Returns a function that adds what was tried to an error of the API server.
    pub(crate) fn api(verb: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { verb, source }
    }

    /// Returns the answer of the API server, if it answered.
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

    /// Whether the reconcile worked with an outdated version of an object. Repeating it helps.
    pub(crate) fn is_conflict(&self) -> bool {
        // The API server answers 422 to a JSON patch whose test fails: someone else changed the finalizers.
        matches!(self, Self::Finalizer(kube::Error::Api(status)) if matches!(status.code, 409 | 422))
            || self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether a retry fails too until someone changes something.
    pub(crate) fn is_permanent(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 422))
            || matches!(self, Self::Apply(ApplyError::NotOurs { .. }) | Self::Secret(SecretError::NotOurs { .. }))
    }

    /// Returns the error with all its causes, for a condition.
    pub(crate) fn chain(&self) -> String {
        crate::error::chain(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status { code, ..Default::default() }))
    }

    #[test]
    fn a_finalizer_that_someone_else_changed_is_a_conflict() {
        for code in [409, 422] {
            let error = ReconcileError::Finalizer(answer(code));
            assert!(error.is_conflict() && !error.is_permanent(), "{code}");
        }
        assert!(!ReconcileError::Finalizer(answer(500)).is_conflict());
    }

    #[test]
    fn an_invalid_object_is_a_permanent_error() {
        let error = ReconcileError::api("write an object")(answer(422));
        assert!(error.is_permanent() && !error.is_conflict());
    }
}
