#include "tools/map_command.h"

#include <fmt/core.h>
#include <unistd.h>

#include <boost/program_options/errors.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <optional>
#include <span>

#include "engine/image_map.h"
#include "engine/new_file.h"
#include "tools/block_map.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/forensic_run.h"
#include "tools/map_svg.h"
#include "tools/map_text.h"
#include "tools/open_arguments.h"
#include "tools/terminal_window.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

constexpr uint64_t kTerminalRows = 16;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid map [OPTION]... IMAGE",
    .description =
        "Shows what of the disk IMAGE stores itself, what its backing files\n"
        "have, what is zero, compressed or shared with snapshots, and at "
        "which\n"
        "offset of which file: as a table and as a map of blocks. Asks for no\n"
        "passphrase: a LUKS volume that fills the disk is data like any other.",
    .operands = {"IMAGE"},
    .common_options = {"table", "blocks", "json", "svg"},
};

// What is to be shown.
struct MapOutputs {
  bool json = false;
  bool table = false;
  bool blocks = false;
  std::string svg;
  bool force = false;
};

void PrintJson(ImageMap& map) {
  const char* before = "[";
  map.ForEachExtent([&](const MapExtent& extent) {
    fmt::print("{}{}", before, FormatMapObject(extent, map.file(extent.depth)));
    before = ",\n";
  });
  fmt::print("{}]\n", map.size() == 0 ? "[" : "");
}

void Show(ImageMap& map, const MapOutputs& outputs, const std::string& image) {
  std::optional<NewFile> svg_file;
  std::optional<BlockMap> svg;
  std::optional<BlockMap> blocks;
  if (!outputs.svg.empty()) {
    svg_file.emplace(outputs.svg, outputs.force);
    svg.emplace(map.size(), kSvgColumns, kSvgRows);
  }
  if (outputs.blocks) {
    blocks.emplace(map.size(), BlockColumns(TerminalColumns(STDOUT_FILENO)),
                   kTerminalRows);
  }
  if (outputs.table) fmt::print("{}", FormatMapHead(map.size()));
  map.ForEachExtent([&](const MapExtent& extent) {
    if (outputs.table) {
      fmt::print("{}",
                 FormatMapLine(extent, map.file(extent.depth), map.size()));
    }
    if (blocks) blocks->Add(extent);
    if (svg) svg->Add(extent);
  });
  if (outputs.table && blocks) fmt::print("\n");
  if (blocks) {
    fmt::print("{}", FormatBlockMap(*blocks, ShowsColour(STDOUT_FILENO)));
  }
  if (svg) {
    const std::string text = FormatMapAsSvg(*svg, image);
    WritableFileDevice& device = svg_file->device();
    device.Write(0, std::as_bytes(std::span(text)));
    svg_file->Keep();
  }
}

}  // namespace

int RunMapCommand(const std::vector<std::string>& words) {
  OpenArguments arguments;
  MapOutputs outputs;
  CommandSandbox sandbox;
  po::options_description options;
  options.add_options()  //
      ("json", po::bool_switch(&outputs.json),
       "print JSON for programs, as qemu-img map does")                   //
      ("table", po::bool_switch(&outputs.table), "print the table only")  //
      ("blocks", po::bool_switch(&outputs.blocks),
       "print the map of blocks only")  //
      ("svg", po::value(&outputs.svg)->value_name("FILE"),
       "draw the map of blocks into FILE, for a browser; prints nothing unless "
       "another option says so")  //
      ("force", po::bool_switch(&outputs.force), "overwrite an existing FILE");
  arguments.AddTo(options);
  sandbox.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  if (outputs.json &&
      (outputs.table || outputs.blocks || !outputs.svg.empty())) {
    throw po::error("--json goes with no other form of the map");
  }
  if (!outputs.table && !outputs.blocks && outputs.svg.empty()) {
    outputs.table = outputs.blocks = true;
  }

  OpenOptions open_options = arguments.ToOpenOptions();
  open_options.image = (*operands)[0];
  sandbox.MayMake(outputs.svg);
  sandbox.Enter();
  return RunForensically(arguments.forensic(), "map", words, [&] {
    CheckExpectedHeader(open_options);
    ImageMap map(open_options);
    for (const std::string& warning : map.warnings()) Warn(warning);
    if (outputs.json) {
      PrintJson(map);
    } else {
      Show(map, outputs, (*operands)[0]);
    }
    return 0;
  });
}

}  // namespace pellucid::cli
