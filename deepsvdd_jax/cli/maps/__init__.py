"""Where in images anomalies are: pieces of images scored and mapped, folders of maps, masks."""
