"""Sets 3D Slicer up for `ultramotion serve`: paste into its Python console.

Not run: 3D Slicer was not at hand. Needs the extension SlicerOpenIGTLink. Research software, not a medical device.
"""

import slicer

HOST, PORT = "localhost", 18945
PREFIX = "UM_"
# The image below the mask: UM_ and the source's device with `output.source`, or the device itself from PlusServer.
IMAGES = ["UM_Image_Reference", "UM_Image_Probe", "Image_Reference", "Image_Probe"]
# Told apart on grey, also without seeing red from green (after Okabe and Ito, 2008).
COLORS = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]


def node(class_name, name):
    """The node of this name and class, made if it is not there."""
    found = slicer.mrmlScene.GetFirstNode(name, class_name)
    return found or slicer.mrmlScene.AddNewNodeByClass(class_name, name)


def colors():
    """A colour for each identity, and none for 0."""
    table = node("vtkMRMLColorTableNode", PREFIX + "Colors")
    table.SetTypeToUser()
    table.SetNumberOfColors(256)
    table.SetColor(0, "none", 0.0, 0.0, 0.0, 0.0)
    for identity in range(1, 256):
        r, g, b = (channel / 255.0 for channel in COLORS[(identity - 1) % len(COLORS)])
        table.SetColor(identity, "structure %d" % identity, r, g, b, 1.0)
    if hasattr(table, "NamesInitialisedOn"):
        table.NamesInitialisedOn()
    return table


def mask():
    """The label map that the connector fills, since it is there before the first message."""
    volume = node("vtkMRMLLabelMapVolumeNode", PREFIX + "Mask")
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAndObserveColorNodeID(colors().GetID())
    return volume


def points():
    """Middles of objects: confirmed ones are selected."""
    markups = node("vtkMRMLMarkupsFiducialNode", PREFIX + "Points")
    markups.CreateDefaultDisplayNodes()
    display = markups.GetDisplayNode()
    display.SetTextScale(3.0)
    display.SetGlyphScale(2.0)
    return markups


def model(name):
    """Outlines, coloured by identity."""
    outlines = node("vtkMRMLModelNode", PREFIX + name)
    outlines.CreateDefaultDisplayNodes()
    display = outlines.GetDisplayNode()
    display.SetLineWidth(3)
    display.SetActiveScalarName("TrackId")
    display.SetAndObserveColorNodeID(colors().GetID())
    display.SetScalarRangeFlag(display.UseManualScalarRange)
    display.SetScalarRange(0, 255)
    display.SetScalarVisibility(True)
    return outlines


def show(mask_volume):
    """The mask over the source's image in the red view, which follows it."""
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    composite.SetLabelVolumeID(mask_volume.GetID())
    composite.SetLabelOpacity(0.5)
    for name in IMAGES:
        image = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLScalarVolumeNode")
        if image:
            composite.SetBackgroundVolumeID(image.GetID())
            break
    driver = getattr(slicer.modules, "volumereslicedriver", None)
    if driver:
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        driver.logic().SetDriverForSlice(mask_volume.GetID(), red)
        driver.logic().SetModeForSlice(driver.logic().MODE_TRANSVERSE, red)


def connect():
    """Makes all nodes, and then connects."""
    filled = mask()
    points()
    model("Contours")
    model("TrackerContours")
    connector = node("vtkMRMLIGTLConnectorNode", "ultramotion")
    connector.SetTypeClient(HOST, PORT)
    connector.Start()
    show(filled)
    return connector


connect()
