"""Everything that knows mmdet, mmcv and mmengine."""
