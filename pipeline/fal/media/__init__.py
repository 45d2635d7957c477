"""Files to and from fal: starts are uploaded, and videos are downloaded without the key, checked and saved whole."""
