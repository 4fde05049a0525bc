"""Where a model's next replica goes, across sites: decisions only, `serve_app/planner.py` carries them out."""
