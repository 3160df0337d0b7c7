// Reads a file of OpenIGTLink messages with the official C++ library and prints what it makes of each, one a line.
//
// Every array that the library allocates ends where a page without access begins, so that one read beyond it ends the
// program, though the library itself may not be compiled with AddressSanitizer.
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <igtlConfigure.h>
#include <igtlImageMessage.h>
#include <igtlMessageHeader.h>
#include <igtlPointMessage.h>
#include <igtlPolyDataMessage.h>
#include <igtlStatusMessage.h>
#include <igtlStringMessage.h>
#include <igtlTimeStamp.h>
#include <igtlTrackingDataMessage.h>
#include <igtlTransformMessage.h>

namespace {
struct Block {
    void* pages;
    size_t bytes;
};

void* guarded(size_t size) {
    const size_t page = sysconf(_SC_PAGESIZE);
    const size_t bytes = (size + sizeof(Block) + 2 * page - 1) / page * page;
    char* pages = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages == MAP_FAILED) throw std::bad_alloc();
    mprotect(pages + bytes - page, page, PROT_NONE);
    char* end = pages + bytes - page;
    const Block block = {pages, bytes};
    std::memcpy(end - size - sizeof(Block), &block, sizeof block);
    return end - size;
}

void release(void* pointer, size_t) {
    if (!pointer) return;
    Block block;
    std::memcpy(&block, static_cast<char*>(pointer) - sizeof block, sizeof block);
    munmap(block.pages, block.bytes);
}
}  // namespace

void* operator new[](size_t size) { return guarded(size); }
void operator delete[](void* pointer) noexcept { release(pointer, 0); }
void operator delete[](void* pointer, size_t size) noexcept { release(pointer, size); }

namespace {
#if OpenIGTLink_PROTOCOL_VERSION >= 3
using AttributeIndex = igtl::PolyDataMessage::AttributeList::size_type;
#else
using AttributeIndex = unsigned;
#endif

// A number by its bits: equal means equal.
void number(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    std::printf(" %08x", bits);
}

template <class T>
typename T::Pointer unpacked(const igtl::MessageHeader::Pointer& header, const char* body, size_t size) {
    typename T::Pointer message = T::New();
    message->SetMessageHeader(header);
    message->AllocatePack();
    if (static_cast<size_t>(message->GetPackBodySize()) != size) std::printf(" BODY-SIZE");
    std::memcpy(message->GetPackBodyPointer(), body, size);
    if (!(message->Unpack(1) & igtl::MessageHeader::UNPACK_BODY)) std::printf(" NOT-UNPACKED");
#if OpenIGTLink_PROTOCOL_VERSION >= 3
    for (const auto& entry : message->GetMetaData()) {
        std::printf(" %s=%s", entry.first.c_str(), entry.second.second.c_str());
    }
#endif
    return message;
}

void cells(const char* name, igtl::PolyDataCellArray::Pointer array) {
    std::printf(" %s", name);
    for (unsigned id = 0; array.IsNotNull() && id < array->GetNumberOfCells(); id++) {
        std::vector<igtlUint32> cell(array->GetCellSize(id));
        array->GetCell(id, cell.data());
        std::printf(" [");
        for (igtlUint32 point : cell) std::printf(" %u", point);
        std::printf(" ]");
    }
}

void polydata(igtl::PolyDataMessage::Pointer message) {
    igtl::PolyDataPointArray::Pointer points = message->GetPoints();
    std::printf(" points");
    for (int id = 0; points.IsNotNull() && id < points->GetNumberOfPoints(); id++) {
        igtlFloat32 point[3];
        points->GetPoint(id, point);
        for (float value : point) number(value);
    }
    cells("vertices", message->GetVertices());
    cells("lines", message->GetLines());
    cells("polygons", message->GetPolygons());
    cells("strips", message->GetTriangleStrips());
    for (int id = 0; id < static_cast<int>(message->GetNumberOfAttributes()); id++) {
        igtl::PolyDataAttribute::Pointer attribute = message->GetAttribute(static_cast<AttributeIndex>(id));
        const unsigned components = attribute->GetNumberOfComponents();
        std::printf(" %s %u %u", attribute->GetName(), attribute->GetType(), components);
        std::vector<igtlFloat32> values(attribute->GetSize() * components);
        if (!values.empty()) attribute->GetData(values.data());
        for (float value : values) number(value);
    }
}

void points(igtl::PointMessage::Pointer message) {
    for (int id = 0; id < message->GetNumberOfPointElement(); id++) {
        igtl::PointElement::Pointer point;
        message->GetPointElement(id, point);
        igtlUint8 rgba[4];
        igtlFloat32 position[3];
        point->GetRGBA(rgba);
        point->GetPosition(position);
        // The library's names end with a line break where they fill their field.
        std::printf(" %s|%s|%s", point->GetName(), point->GetGroupName(), point->GetOwner());
        for (int value : rgba) std::printf(" %d", value);
        for (float value : position) number(value);
        number(point->GetRadius());
    }
}

void matrix(const igtl::Matrix4x4& rows) {
    for (int row = 0; row < 3; row++) {
        for (int column = 0; column < 4; column++) number(rows[row][column]);
    }
}

void image(igtl::ImageMessage::Pointer message) {
    int size[3];
    message->GetDimensions(size);
    std::printf(" %dx%dx%d scalar %d", size[0], size[1], size[2], message->GetScalarType());
    const unsigned char* pixels = static_cast<const unsigned char*>(message->GetScalarPointer());
    unsigned long sum = 0;
    for (long at = 0; at < static_cast<long>(message->GetImageSize()); at++) sum = sum * 31 + pixels[at];
    std::printf(" pixels %lu", sum);
}
}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 2;
    if (!std::strcmp(arguments[1], "--protocol")) {
        std::printf("%d\n", OpenIGTLink_PROTOCOL_VERSION);
        return 0;
    }
    std::FILE* file = std::fopen(arguments[1], "rb");
    if (!file) return 2;
    for (;;) {
        igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
        header->InitPack();
        const size_t head = header->GetPackSize();
        if (std::fread(header->GetPackPointer(), 1, head, file) != head) break;
        header->Unpack();
        const size_t size = header->GetBodySizeToRead();
        std::string body(size, '\0');
        if (std::fread(&body[0], 1, size, file) != size) return 3;
        const std::string type = header->GetDeviceType();
        unsigned seconds = 0, fraction = 0;
        igtl::TimeStamp::Pointer time = igtl::TimeStamp::New();
        header->GetTimeStamp(time);
        header->GetTimeStamp(&seconds, &fraction);
        std::printf("%s %s %u.%08x", type.c_str(), header->GetDeviceName(), seconds, fraction);
        if (type == "IMAGE") {
            image(unpacked<igtl::ImageMessage>(header, body.data(), size));
        } else if (type == "POLYDATA") {
            polydata(unpacked<igtl::PolyDataMessage>(header, body.data(), size));
        } else if (type == "POINT") {
            points(unpacked<igtl::PointMessage>(header, body.data(), size));
        } else if (type == "STRING") {
            std::printf(" %s", unpacked<igtl::StringMessage>(header, body.data(), size)->GetString());
        } else if (type == "STATUS") {
            igtl::StatusMessage::Pointer status = unpacked<igtl::StatusMessage>(header, body.data(), size);
            std::printf(" %d %s %s", status->GetCode(), status->GetErrorName(), status->GetStatusString());
        } else if (type == "TRANSFORM") {
            igtl::Matrix4x4 rows;
            unpacked<igtl::TransformMessage>(header, body.data(), size)->GetMatrix(rows);
            matrix(rows);
        } else if (type == "TDATA") {
            igtl::TrackingDataMessage::Pointer data = unpacked<igtl::TrackingDataMessage>(header, body.data(), size);
            for (int id = 0; id < data->GetNumberOfTrackingDataElements(); id++) {
                igtl::TrackingDataElement::Pointer tool;
                data->GetTrackingDataElement(id, tool);
                igtl::Matrix4x4 rows;
                tool->GetMatrix(rows);
                std::printf(" %s", tool->GetName());
                matrix(rows);
            }
        } else {
            std::printf(" UNKNOWN");
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    std::fclose(file);
    return 0;
}
