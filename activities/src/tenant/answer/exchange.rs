//! One exchange with a tenant, from the request to the beginning of its answer.

use std::time::Duration;

use reqwest::{Request, Response};

use crate::tenant::Tenant;
use crate::tenant::descriptors::lacks_descriptors;

/// Between two tries to open a connection.
const PAUSE: Duration = Duration::from_millis(500);

impl Tenant {
    /// Sends a request. Without a descriptor for a connection it waits for one, for half of what the request may take.
    pub(in crate::tenant) async fn execute(&self, mut request: Request) -> Result<Response, reqwest::Error> {
        let began = self.clock.monotonic();
        loop {
            let again = request.try_clone();
            let answered = self.http.execute(request).await;
            let Some(next) = again.filter(|_| answered.as_ref().is_err_and(lacks_descriptors)) else { return answered };
            if self.clock.monotonic().saturating_sub(began) + PAUSE > self.settings.request_timeout / 2 {
                return answered;
            }
            self.clock.sleep(PAUSE).await;
            request = next;
        }
    }
}
