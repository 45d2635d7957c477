"""fal's protocol: a request and its reply, the meaning of a reply, and the texts of its errors."""
