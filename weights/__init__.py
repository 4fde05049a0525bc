"""What is where: releases of models, the object stores that hold them, and the caches that nodes load from."""
